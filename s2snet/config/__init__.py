"""Define every setting once: dataclasses with defaults, bounds and help texts, for the command line and Python.

Imports no torch, Hydra or Lightning, so that a typo is reported without these imports.
"""
