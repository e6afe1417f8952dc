"""The folder of a run: its options and environment, the backup that it is resumed from, and the plots.

`callbacks` writes into it while `fit` runs.
"""
