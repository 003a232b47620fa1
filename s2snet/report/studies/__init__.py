"""The pages of the studies: analysis.html, and the sections that report.html shows too. No torch, no models.

The title, question and figures of a study are in s2snet/analysis/NAME/figures.py.
"""
