"""The command line: Hydra composes the settings, the dataclasses of s2snet/config check them, then the work starts.

Hydra is imported here and nowhere else.
"""
