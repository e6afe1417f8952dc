"""The network as a folded TFLite graph, and the file that holds it.

It builds on `segformer_tf` alone: `fold` and `ir` know no file, `flatbuffer` and `metadata` no network.
"""
