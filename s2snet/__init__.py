"""Train, attack and evaluate purifiers in front of image classifiers.

Importing this package does not import torch; `s2snet.load` imports it on first use.
"""

# `s2snet.audit` is this function and also a package. The package is imported first, here, so that no later import of it
# replaces the function; its modules are imported as `from s2snet.audit import checks`.
from s2snet.audit import audit as audit

__version__ = "0.1.0"


def __getattr__(name: str):
    if name == "load":
        from s2snet.store.weights import load

        return load
    if name in ("evaluate", "train_purifier"):
        from s2snet import api

        return getattr(api, name)
    if name == "Defended":
        from s2snet.models import Defended

        return Defended
    raise AttributeError(f"module 's2snet' has no attribute {name!r}")
