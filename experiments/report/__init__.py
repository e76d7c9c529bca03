"""HTML output: what all pages share (`page`, `markup`, `chart`), and the report on runs."""
