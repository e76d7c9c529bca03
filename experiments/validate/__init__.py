"""The same requests emulated and simulated, side by side: how far the simulation is off."""
