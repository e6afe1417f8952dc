"""Losses of masks at full size with logits on the 1/4 grid, as registered Keras losses.

`table` names them for `--loss` and imports no TensorFlow; `pixels` are means over pixels, `images` over images.
"""
