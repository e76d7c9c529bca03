"""What happened to one flow or one request, in sentences."""
