"""The `mfs` command, a module per verb. What verbs share is in options, endings, streams, fabric_choice,
listing and progress_display."""
