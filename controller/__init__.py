"""The pure scheduling core, and the thin shell that enforces its decisions at the switches.

Flows go in, levels come out. Nothing here imports any other room of the project.
"""
