"""study=directions: directions and subspaces (arXiv 1807.04200). It begins in study.py."""
