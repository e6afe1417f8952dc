"""`benchmarks.trained`: what is there is gone on with only if it is what was asked for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.trained import trained
from segformer_tf.errors import InputError
from training.config import PretrainConfig, RunConfig, TrainConfig
from training.runs.folder import write_json


@pytest.mark.parametrize("kind", [TrainConfig, PretrainConfig])
def test_a_run_of_other_options_is_refused(
    kind: type[RunConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[object] = []
    monkeypatch.setattr("training.train.train", done.append)
    monkeypatch.setattr("training.train.resume", lambda root, kind: done.append((root, kind)))
    monkeypatch.chdir(tmp_path)
    masked = {"masked": True, "more_data": ("more",)} if kind is PretrainConfig else {"eval_size": None}
    config = kind(data="data", out=tmp_path / "run", steps=40, epoch_steps=20, drop_path=0.0, **masked)
    trained(config)
    assert done == [config]
    places = {"more_data": (str(tmp_path / "more"),)} if kind is PretrainConfig else {"eval_size": (64, 64)}
    final = replace(config, data=str(tmp_path / "data"), warmup_steps=4, **places)
    (tmp_path / "run").mkdir()
    write_json(tmp_path / "run" / "config.json", final.to_dict())
    trained(config)
    assert done[1:] == [(tmp_path / "run", kind)]
    for changes, message in (
        ({"steps": 60}, "run: a run of other options is there, with --steps 40. Expected: 60"),
        ({"data": "other"}, "with --data .*data. Expected: .*other"),
        ({"more_data": ()} if kind is PretrainConfig else {"eval_size": (32, 32)}, "with --(more-data|eval-size)"),
    ):
        with pytest.raises(InputError, match=message):
            trained(replace(config, **changes))
    assert len(done) == 2
