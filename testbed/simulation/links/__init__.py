"""The fluid links: their tables, the compiled loops that share them, and the network around both."""
