"""Define threats: which modules the attacker differentiates (routes), and which defences judge (knowledge)."""

from s2snet.threats.knowledge import THREATS, Attempt, Facts
from s2snet.threats.routes import ROUTES
from s2snet.threats.surrogates import SURROGATES, fit

__all__ = ["ROUTES", "SURROGATES", "THREATS", "Attempt", "Facts", "fit"]
