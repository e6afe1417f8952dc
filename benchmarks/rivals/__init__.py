"""SegFormer beside other networks for segmentation, on LiteRT and this CPU: the paper's first figure, measured."""
