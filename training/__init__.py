"""Training and evaluation: `cli` takes the options, `train` is the story of a run, `evaluate` scores a model.

Rooms: `data` (samples and batches), `tasks` (what is trained), `optim` (losses and optimizer), `runs` (the run folder),
`distributed` (devices and machines).
"""
