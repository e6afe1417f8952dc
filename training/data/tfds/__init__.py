"""Data sets by name: from TensorFlow Datasets, or built here."""
