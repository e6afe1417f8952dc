"""The arithmetic of a step: losses and metrics, optimizer and learning rate, gradient accumulation.

Everything gives the same result on one device and on many.
"""
