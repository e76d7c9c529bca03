"""One scenario on the emulated and the simulated fabric, side by side."""
