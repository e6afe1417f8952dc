"""The two tasks of `training.train`: segmentation, and classification to pretrain the encoder.

A task has the data, the model, the loss, the metrics and the pictures of a run.
"""
