"""What a machine adds to ideal links, and what a GPU reaches of its peaks, measured."""
