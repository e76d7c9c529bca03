"""The fluid links, compiled: their tables, how streams share them, and the network around both."""
