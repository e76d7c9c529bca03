"""What a run leaves behind: measures, tables, summary and trace, written to a directory and read back."""
