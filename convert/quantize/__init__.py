"""Recipes of quantization: rewrites of the float graph, calibration, what they cost."""
