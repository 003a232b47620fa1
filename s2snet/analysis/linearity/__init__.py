"""study=linearity: the linear explanation of adversarial examples (arXiv 1412.6572)."""
