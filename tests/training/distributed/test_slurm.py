from __future__ import annotations

import json
from pathlib import Path

import pytest

from segformer_tf.errors import InputError
from training.distributed.slurm import expand_nodes, tf_config
from training.distributed.strategy import Place, this_place

STEP = {
    "SLURM_JOB_ID": "123456",
    "SLURM_PROCID": "3",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_STEP_NODELIST": "n[2,10],gpu1",
    "SLURM_STEP_TASKS_PER_NODE": "1(x2),2",
}


@pytest.mark.parametrize(
    ("nodes", "names"),
    [
        ("a", ["a"]),
        ("a,b-1", ["a", "b-1"]),
        ("n[08-10,12],m5,o[3-4]", ["n08", "n09", "n10", "n12", "m5", "o3", "o4"]),
    ],
)
def test_node_lists(nodes: str, names: list[str]) -> None:
    assert expand_nodes(nodes) == names


def test_a_step_becomes_tf_config(monkeypatch: pytest.MonkeyPatch) -> None:
    port = 10_000 + 16 * (7 * 123456 % 1_400)
    addresses = [f"n2:{port}", f"n10:{port}", f"gpu1:{port}", f"gpu1:{port + 1}"]  # in Slurm's order, not by name
    assert json.loads(tf_config(STEP)) == {
        "cluster": {"worker": addresses},
        "task": {"type": "worker", "index": 3},
    }
    monkeypatch.setenv("TF_CONFIG", "")
    for name, value in STEP.items():
        monkeypatch.setenv(name, value)
    assert this_place() == Place(3, 4, tuple(addresses))
    following = json.loads(tf_config({**STEP, "SLURM_JOB_ID": "123457"}))["cluster"]["worker"]
    assert not set(following) & set(addresses)


def test_one_task_or_no_step_is_alone() -> None:
    assert tf_config({}) == tf_config({**STEP, "SLURM_STEP_NUM_TASKS": "1"}) == ""


@pytest.mark.parametrize(
    "change",
    [
        {"SLURM_STEP_NODELIST": "n[2"},
        {"SLURM_STEP_NODELIST": "n2"},
        {"SLURM_STEP_TASKS_PER_NODE": "two"},
        {"SLURM_STEP_NUM_TASKS": "5"},
        {"SLURM_JOB_ID": ""},
    ],
)
def test_another_form_is_one_line(change: dict[str, str]) -> None:
    with pytest.raises(InputError, match="cannot read the tasks"):
        tf_config({**STEP, **change})


def test_the_kubernetes_example_is_a_tf_config_we_read(monkeypatch: pytest.MonkeyPatch) -> None:
    text = (Path(__file__).parents[3] / "examples" / "kubernetes.yaml").read_text()
    config = text.split("export TF_CONFIG='")[1].split("}}'")[0] + "}}"
    monkeypatch.setenv("TF_CONFIG", config.replace("'$JOB_COMPLETION_INDEX'", "1"))
    assert this_place() == Place(1, 2, ("segformer-0.segformer:12345", "segformer-1.segformer:12345"))
