"""`mfs bench`: the cost of the scheduler and of the simulated fabric, also beside other simulators."""
