"""A ``.tflite`` as a function: how pixels go in, how scores of classes come out, of our files and others'."""
