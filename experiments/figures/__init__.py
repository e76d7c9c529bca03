"""Figures and tables for papers, from the directories of sweeps and runs."""
