"""Several runs that belong together: the same with other seeds, or a search for better settings."""
