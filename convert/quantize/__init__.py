"""Recipes of quantization: rewrites of a float graph, calibration, and how much int8 moves the logits.

`recipes` is the table; each rewrite returns a new graph. It builds on `convert.graph` alone.
"""
