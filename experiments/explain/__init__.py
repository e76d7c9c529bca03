"""What happened to one flow or one request of a run, in sentences."""
