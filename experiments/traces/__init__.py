"""`mfs workload`: describing a trace, converting it, and making one with given statistics."""
