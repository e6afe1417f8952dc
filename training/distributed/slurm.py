"""TF_CONFIG for workers that Slurm's `srun` starts."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from itertools import chain

from segformer_tf.errors import InputError


def tf_config(environment: Mapping[str, str]) -> str:
    """TF_CONFIG of a task of `srun`, or "" outside a step of several tasks.

    Tasks follow the order of the node list (srun's default, block distribution). TensorFlow's `SlurmClusterResolver`
    sorts the nodes by name, n10 before n2, which would give a task the address of another, and needs nvidia-smi.

    Args:
        environment: has SLURM_PROCID, SLURM_STEP_NUM_TASKS, SLURM_STEP_NODELIST, SLURM_STEP_TASKS_PER_NODE
            (``3(x2),1``), and SLURM_JOB_ID and SLURM_STEP_ID, which give steps on one node different ports, mostly.

    Raises:
        InputError: values of another form.
    """
    if "SLURM_PROCID" not in environment or environment.get("SLURM_STEP_NUM_TASKS", "1") == "1":
        return ""
    try:
        step = 7 * int(environment["SLURM_JOB_ID"]) + int(environment.get("SLURM_STEP_ID", "0"))
        port = 10_000 + 16 * (step % 1_400)  # below Linux' range of automatic ports
        counts = list(chain.from_iterable(map(_repeated, environment["SLURM_STEP_TASKS_PER_NODE"].split(","))))
        hosts = expand_nodes(environment["SLURM_STEP_NODELIST"])
        addresses = [f"{host}:{port + i}" for host, count in zip(hosts, counts, strict=True) for i in range(count)]
        if len(addresses) != int(environment["SLURM_STEP_NUM_TASKS"]):
            raise ValueError(f"{len(addresses)} tasks")
        index = int(environment["SLURM_PROCID"])
    except (KeyError, ValueError) as error:
        variables = {name: value for name, value in environment.items() if name.startswith("SLURM_STEP_")}
        raise InputError(f"Slurm: cannot read the tasks of this step from {variables} ({error})") from None
    return json.dumps({"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}})


def expand_nodes(nodes: str) -> list[str]:
    """``n[08-10,12],gpu1`` to n08, n09, n10, n12, gpu1; raises ValueError for another form."""
    part = r"[^,\[\]]*(?:\[[\d,-]+\])?"
    if not re.fullmatch(f"{part}(,{part})*", nodes):
        raise ValueError(nodes)
    names: list[str] = []
    for prefix, ranges in re.findall(r"([^,\[\]]+)(?:\[([\d,-]+)\])?", nodes):
        for first, last in (each.partition("-")[::2] for each in ranges.split(",")):
            numbers = range(int(first), int(last or first) + 1) if first else ()
            names += [f"{prefix}{number:0{len(first)}d}" for number in numbers] or [prefix]
    return names


def _repeated(text: str) -> list[int]:
    match = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", text)
    if not match:
        raise ValueError(text)
    return [int(match[1])] * int(match[2] or 1)
