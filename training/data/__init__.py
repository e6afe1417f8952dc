"""From files to batches: data sets, what their masks mean, checks, augmentation, the tf.data pipeline."""
