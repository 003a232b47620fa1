"""study=gradients: what purifiers do to input gradients (arXiv 1803.07994)."""
