"""Reading checkpoints of other code bases.

`state_dict` reads tensors, `dialects` names them as four code bases do, `importer` places them in the network.
"""
