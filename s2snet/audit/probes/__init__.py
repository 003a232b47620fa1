"""Probes of the audit: measurements of a defence on a few images, stored as plain numbers in probes.json.

The checks (s2snet/audit/checks) grade these numbers without the model, so an audit can be repeated from a result
folder. A probe measures and does not judge, and leaves the module as it was. measure.py runs them for an evaluation.
"""
