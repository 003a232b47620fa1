"""study=relations: classifiers among each other (arXiv 1803.07994, 1803.08337). It begins in study.py."""
