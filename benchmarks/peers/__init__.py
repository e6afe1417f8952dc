"""SegFormer on this CPU by every road there is: ours, keras-hub's and transformers' on four engines, interleaved."""
