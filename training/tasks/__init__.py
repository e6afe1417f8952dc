"""The tasks of `training.train`: segmentation; and to pretrain the encoder, classification and painting.

A task has the data, the model, the loss, the metrics and the pictures of a run.
"""
