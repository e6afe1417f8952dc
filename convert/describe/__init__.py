"""What a model file or a run holds: `segformer info`."""
