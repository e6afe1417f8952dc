"""Training and evaluation: `cli` takes the options, `train` is the story of a run, `evaluate` scores a model.

Rooms: `data` (samples and batches), `tasks` (what is trained), `optim` (losses and optimizer), `runs` (the run folder),
`distillation` (a teacher), `distributed` (devices and machines), `analysis` (pictures and figures of a trained model).
"""
