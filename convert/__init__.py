"""Conversion: Keras -> TFLite -> verified TFLite."""
