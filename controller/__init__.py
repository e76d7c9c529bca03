"""The scheduling core (pure) and the thin shell that puts its decisions into switches.

Nothing here imports any other room of the project: flows in, levels out.
"""
