"""The verb `plan`: times a few graphs that are package data, and predicts other sizes, variants and recipes."""
