"""Cached KV: which replica holds which prefix, how much it keeps, and what a request can reuse."""
