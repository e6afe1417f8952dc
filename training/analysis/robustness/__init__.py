"""`segformer robustness`: mean IoU under the corruptions of Cityscapes-C."""
