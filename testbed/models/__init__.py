"""Models and GPUs: shapes, the bytes, FLOPs and seconds that follow from them, and `config.json` files."""
