"""Trains the network by JAX, where a GPU has no TensorFlow: comparisons and long runs of docs/experiments.md.

The weights are those of the Keras model, variable by variable: `keras_file` writes a run's into a .keras file.
"""
