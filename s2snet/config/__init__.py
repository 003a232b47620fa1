"""What a user may ask for: dataclasses with defaults and bounds, shared by the command line and Python.

Imports no torch, Hydra or Lightning, so that a mistyped setting costs no import.
"""
