"""study=directions: directions and subspaces (arXiv 1807.04200)."""
