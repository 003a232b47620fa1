"""Evaluation: craft adversarial images, judge them, keep one row per image.

`schema` and `scores` import no torch, so that results can be read, aggregated and drawn on any machine.
"""
