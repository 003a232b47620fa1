"""The command line: Hydra composes the settings, dataclasses check them, then the work is called.

Hydra lives here and nowhere else.
"""
