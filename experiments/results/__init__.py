"""The results of a run: measures, tables, summary and trace, written to a directory and read back."""
