"""The devices and machines that train: a tf.distribute strategy, and this process among the workers.

TF_CONFIG or Slurm says which workers there are.
"""
