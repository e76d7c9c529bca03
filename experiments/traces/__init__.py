"""What `mfs workload` does: describe a trace, or make one with given statistics."""
