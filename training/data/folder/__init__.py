"""A data set in a folder: images, masks, and a ``dataset.json`` that says what the masks mean."""
