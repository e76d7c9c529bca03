"""HTML: the kit that every page is made of (page, markup, chart), and the report on runs."""
