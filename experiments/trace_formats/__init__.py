"""Public trace formats: a module per format reads it into rows; `formats` has them by name."""
