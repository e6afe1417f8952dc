"""SegFormer on this CPU: our files against keras-hub's and transformers' on four engines, interleaved."""
