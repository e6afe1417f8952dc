"""A folder of images and masks with its ``dataset.json``."""
