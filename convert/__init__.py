"""Conversion: a trained SegFormer to a verified TFLite file, and to and from PyTorch checkpoints.

Arrows point down: cli, then compare, interchange, export, exported, quantize, graph; below them `segformer_tf`.
"""
