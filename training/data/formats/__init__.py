"""Labels as other tools write them, converted to a folder of ours: a file per format, one form for all."""
