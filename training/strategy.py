"""Which devices train: one, all GPUs, or virtual CPUs that stand in for them."""

from __future__ import annotations

from functools import lru_cache

import tensorflow as tf

from segformer_tf.errors import InputError


@lru_cache
def make_strategy(devices: int | None = None) -> tf.distribute.Strategy:
    """A tf.distribute strategy over this machine's devices, the same object for the same count.

    Two mirrored strategies in one process would share the keys of their collective operations, and fail.

    Args:
        devices: number of replicas; None takes every GPU, or one CPU where there is none. Without GPUs,
            more than one splits the CPU into virtual devices: slower, for trying it out.

    Raises:
        InputError: more replicas than GPUs, or TensorFlow already set up its CPU another way.
    """
    gpus = tf.config.list_physical_devices("GPU")
    count = devices if devices is not None else max(1, len(gpus))
    if count < 1 or (gpus and count > len(gpus)):
        raise InputError(f"--devices must be 1 to {len(gpus) or 'any'}. Received: {count}")
    if count == 1:
        return tf.distribute.OneDeviceStrategy("/gpu:0" if gpus else "/cpu:0")
    if gpus:
        return tf.distribute.MirroredStrategy([f"/gpu:{i}" for i in range(count)])
    _split_cpu(count)
    return tf.distribute.MirroredStrategy([f"/cpu:{i}" for i in range(count)])


def _split_cpu(count: int) -> None:
    cpu = tf.config.list_physical_devices("CPU")[0]
    try:
        if len(tf.config.get_logical_device_configuration(cpu) or [0]) < count:
            tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)
    except RuntimeError:
        raise InputError(f"cannot split the CPU into {count} devices once TensorFlow has run") from None
