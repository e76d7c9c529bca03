"""HTML pages: the report of a run, and the parts every page is made of."""
