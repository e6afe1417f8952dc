"""`segformer export --format onnx` and `openvino`: the folded graph as ONNX operations, verified before it is written.

It builds on the TFLite export: the same graph, the same recipes of quantization.
"""
