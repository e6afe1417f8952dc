"""Optimizer, losses, gradient accumulation, and the end of a training that diverges."""
