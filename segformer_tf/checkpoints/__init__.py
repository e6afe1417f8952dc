"""Reading checkpoints of other code bases, without running anything in them.

A name becomes a path in `hub`, a path a file in `folder`, a file tensors in `state_dict`, with an adapter merged by
`lora`; `dialects` names tensors as four code bases do, `importer` places them in the network.
"""
