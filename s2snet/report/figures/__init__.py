"""The figures: one file each, with `draw(headline, axes, ...)` that opens no file and knows no model."""
