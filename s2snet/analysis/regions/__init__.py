"""study=regions: regions of importance and of attack (arXiv 2011.10794). It begins in study.py."""
