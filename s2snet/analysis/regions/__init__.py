"""study=regions: where a classifier looks and where attacks go (arXiv 2011.10794)."""
