"""Data sets known by name: what their masks mean, and builders of those TFDS lacks."""
