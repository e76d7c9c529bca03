"""The serving system, which makes batch plans, and the fabrics that carry them out."""
