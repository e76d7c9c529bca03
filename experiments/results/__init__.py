"""The results of a run: measures, summary, tables, trace; written to a directory and read back."""
