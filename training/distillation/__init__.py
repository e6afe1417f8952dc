"""`segformer train --teacher`: a larger network teaches the one that is trained, by its logits and its features."""
