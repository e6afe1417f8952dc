"""`segformer verify`: two models compared, weight by weight and step by step."""
