"""Public trace formats, a reader per format."""
