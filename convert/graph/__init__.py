"""The network as a TFLite graph, folded, and the file made of it."""
