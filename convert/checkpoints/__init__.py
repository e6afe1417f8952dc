"""PyTorch checkpoints in, and Keras or transformers checkpoints out.

`state_dict` reads tensors, `dialects` names them as four code bases do, `importer` places them in the network.
"""
