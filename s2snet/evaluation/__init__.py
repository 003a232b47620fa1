"""Craft adversarial images, judge them and keep one row per image.

`schema` and `scores` import no torch, so that results can be read, aggregated and drawn on any machine.
"""
