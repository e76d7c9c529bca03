"""The fabrics a serving plan can run on, and the serving system that makes the plans."""
