"""Public trace formats: a module per format, which reads it into rows; `formats` has them by name."""
