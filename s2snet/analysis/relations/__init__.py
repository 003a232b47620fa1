"""study=relations: relations between classifiers (arXiv 1803.07994, 1803.08337)."""
