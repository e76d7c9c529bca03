"""The `mfs` command, a module per verb."""
