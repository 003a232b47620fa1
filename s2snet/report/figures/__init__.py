"""Draw the figures: one module each, with a function `draw(..., axes, ...)` that opens no files."""
