"""What the scheduler and the simulated fabric cost: `mfs bench`."""
