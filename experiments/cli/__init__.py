"""The `mfs` command, with a module per verb.

The verbs share options, endings, streams, fabric_choice, fabric_needs, listing and progress_display.
"""
