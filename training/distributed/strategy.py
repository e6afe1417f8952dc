"""Which devices train: one, all GPUs, several machines, or virtual CPUs that stand in for them."""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

import tensorflow as tf

from segformer_tf.errors import InputError, first_line
from segformer_tf.native_log import native_silence
from training.distributed import slurm


@dataclass(frozen=True)
class Place:
    """This process among the workers of a training; only the chief (index 0) writes weights, history and pictures.

    Attributes:
        index: number of this worker.
        count: number of workers.
        addresses: "host:port" of every worker, in order.
    """

    index: int = 0
    count: int = 1
    addresses: tuple[str, ...] = ()

    @property
    def chief(self) -> bool:
        return self.index == 0


def this_place() -> Place:
    """This process by TF_CONFIG, or by Slurm, which then sets TF_CONFIG; without either, the only worker.

    Raises:
        InputError: TF_CONFIG or Slurm's variables cannot be used.
    """
    text = os.environ.get("TF_CONFIG", "") or slurm.tf_config(os.environ)
    if not text:
        return Place()
    os.environ["TF_CONFIG"] = text  # where tf.distribute looks
    try:
        config = json.loads(text)
        cluster, task = config.get("cluster", {}), config.get("task", {})
        kinds = [kind for kind in ("chief", "worker") if kind in cluster]  # in the order of tf.distribute
        before = {kind: sum(len(cluster[k]) for k in kinds[:i]) for i, kind in enumerate(kinds)}
        addresses = tuple(str(address) for kind in kinds for address in cluster[kind])
        place = Place(before[task["type"]] + int(task["index"]), len(addresses), addresses)
        for address in addresses:
            _host_and_port(address)
    except (AttributeError, KeyError, TypeError, ValueError):
        raise InputError(
            'TF_CONFIG: expected {"cluster": {"worker": ["host:port", …]}, "task": {"type": "worker", "index": 0}}. '
            f"Received: {text}"
        ) from None
    if not 0 <= place.index < place.count:
        raise InputError(f"TF_CONFIG: task index {place.index} is not among {place.count} workers")
    return place


@lru_cache
def make_strategy(devices: int | None = None) -> tf.distribute.Strategy:
    """A tf.distribute strategy over this machine's devices, or TF_CONFIG's machines; one object for each count.

    Two mirrored strategies in one process would use the same keys for their collective operations, and fail.

    Args:
        devices: number of replicas; None takes every GPU, or one CPU where there is none. Without GPUs,
            more than one splits the CPU into virtual devices: slower, for trying it out.

    Raises:
        InputError: more replicas than GPUs, or TensorFlow already set up its CPU another way, or a TF_CONFIG
            that cannot be used.
    """
    if this_place().count > 1:
        return _many_workers(devices)
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


@contextmanager
def plain_worker_errors(hint: str) -> Iterator[None]:
    """Turn TensorFlow's errors when another worker is lost into an InputError of one line that ends in `hint`."""
    try:
        yield
    except (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError, tf.errors.InternalError,
            tf.errors.DeadlineExceededError, tf.errors.FailedPreconditionError) as error:  # fmt: skip
        place = this_place()
        if place.count == 1:
            raise
        raise InputError(
            f"worker {place.index} of {place.count} stopped, for another one did ({type(error).__name__}): "
            f"see what that one said; {hint}"
        ) from None


def _many_workers(devices: int | None) -> tf.distribute.Strategy:
    if devices is not None:
        raise InputError(f"--devices: with TF_CONFIG every worker uses all its devices. Received: {devices}")
    _meet(this_place())
    try:
        with native_silence():
            return tf.distribute.MultiWorkerMirroredStrategy()
    except (tf.errors.OpError, RuntimeError, ValueError) as error:
        reason = first_line(error)
        raise InputError(f"TF_CONFIG: the workers do not come together ({reason})") from None


def _meet(place: Place) -> None:
    """Wait until every worker can be reached, and print which are missing.

    TensorFlow itself would wait in silence, and cannot be interrupted. Meanwhile each worker listens on its own
    port. One that has reached all others leaves the port to TensorFlow, which answers the workers that still wait.
    """
    own = _host_and_port(place.addresses[place.index])[1]
    try:
        listener = socket.create_server(("", own), backlog=place.count)
    except OSError as error:
        raise InputError(f"TF_CONFIG: port {own} cannot be listened on ({error.strerror})") from None
    with listener:
        missing = [address for i, address in enumerate(place.addresses) if i != place.index]
        printed: list[str] = []
        while missing := [address for address in missing if not _answers(address)]:
            if missing != printed:
                print(f"worker {place.index} of {place.count}: waiting for {', '.join(missing)}", file=sys.stderr)
                printed = missing
            time.sleep(0.5)


def _answers(address: str) -> bool:
    try:
        with socket.create_connection(_host_and_port(address), timeout=2):
            return True
    except OSError:  # not listening yet, or its name is unknown yet, like that of a pod which has not started
        return False


def _host_and_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def _split_cpu(count: int) -> None:
    cpu = tf.config.list_physical_devices("CPU")[0]
    try:
        if len(tf.config.get_logical_device_configuration(cpu) or [0]) < count:
            tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)
    except RuntimeError:
        raise InputError(f"cannot split the CPU into {count} devices once TensorFlow has run") from None
