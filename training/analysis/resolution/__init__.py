"""`segformer resolution`: mean IoU, latency and memory over input sizes."""
