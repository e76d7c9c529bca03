"""The fabric `cluster`: real servers, whose ranks torchrun starts and which mark their own packets."""
