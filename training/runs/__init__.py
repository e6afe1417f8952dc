"""The folder of a run: configuration, backup, callbacks, plots."""
