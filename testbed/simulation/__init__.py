"""The simulated fabric: flows as fluids on ideal links, events in whole nanoseconds."""
