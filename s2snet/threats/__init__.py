"""Threats: from defended modules to what an attacker differentiates (routes) and who judges (knowledge)."""

from s2snet.threats.knowledge import THREATS, Attempt
from s2snet.threats.routes import ROUTES

__all__ = ["ROUTES", "THREATS", "Attempt"]
