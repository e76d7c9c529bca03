"""Watching a run that is under way: the file in which it says how it is, and what `mfs top` shows of it."""
