"""Data sets from files to batches: opening, the meaning of masks, checks, augmentation, the tf.data pipeline."""
