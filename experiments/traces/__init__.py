"""`mfs workload`: describing a trace, and making one with given statistics."""
