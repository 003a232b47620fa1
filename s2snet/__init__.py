"""Train, attack and evaluate purifiers in front of image classifiers.

Importing this package does not import torch; `s2snet.load` imports it on first use.
"""

__version__ = "0.1.0"


def __getattr__(name: str):
    if name == "load":
        from s2snet.store.weights import load

        return load
    if name in ("evaluate", "train_purifier"):
        from s2snet import api

        return getattr(api, name)
    if name == "audit":
        import importlib

        return importlib.import_module("s2snet.audit")
    if name == "Defended":
        from s2snet.models import Defended

        return Defended
    raise AttributeError(f"module 's2snet' has no attribute {name!r}")
