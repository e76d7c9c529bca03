"""Readers of files that describe a network: one for each format, behind `formats.read_network`."""
