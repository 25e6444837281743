"""Reports as HTML files that need nothing else: no script, no network."""
