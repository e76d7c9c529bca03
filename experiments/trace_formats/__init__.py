"""Public trace formats, and one of our own: a module per format, which `formats` has by name.

A module says what a decoded row means: a function that makes `TraceRow`s of it. `lines` decodes files, and
`Reader` has what is said of a format as a whole. Nothing of a format is anywhere else.
"""
