"""PyTorch checkpoints in, and Keras or transformers checkpoints out."""
