"""What a network learns from known crystals: to read relatives, and which crystals they make probable."""
