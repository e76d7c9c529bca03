"""Models and GPUs: shapes and speeds, the bytes, FLOPs and seconds of a layer, `config.json` files."""
