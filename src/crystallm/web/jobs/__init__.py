"""Jobs: their queue, what is kept of them, and how each kind is done."""
