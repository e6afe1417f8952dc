"""The verb `predict`: images in, masks and overlays out."""
