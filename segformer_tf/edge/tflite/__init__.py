"""A ``.tflite`` as a function from pixels to class scores, for our own files and others'."""
