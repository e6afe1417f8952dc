"""`segformer verify`: two models compared, weight by weight and step by step.

`models` opens the two files, `torch_network` runs a checkpoint in torch, `steps` compares.
"""
