"""`segformer doctor`: which delegates would run which operations of a file."""
