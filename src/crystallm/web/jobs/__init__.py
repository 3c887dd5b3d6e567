"""Jobs: their queue, their files, and how each kind is run."""
