"""Certified L2 robustness of smoothed classifiers (Cohen et al., arXiv 1902.02918; denoisers: arXiv 2003.01908)."""
