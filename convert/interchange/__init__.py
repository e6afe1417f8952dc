"""Weights from other code bases in, and out to them: `segformer import`, `export --format keras` and `transformers`."""
