"""Effective receptive fields: which pixels move the middle of an output, and how far away they are."""
