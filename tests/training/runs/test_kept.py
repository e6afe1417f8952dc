"""What a training keeps when its validation fails, and the options that a resumed run may change."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest

from segformer_tf import build_segformer
from segformer_tf.cli import main
from segformer_tf.errors import InputError
from tests.training.runs.test_resume import assert_same_end
from tests.training.small import EXACT, SMALL
from training.changes import changes_since, with_changes
from training.config import PretrainConfig, TrainConfig
from training.data.open import open_source
from training.optim.optimizer import SegFormerAdamW
from training.runs.backup import Backup, Progress
from training.runs.folder import Run
from training.tasks.segmentation import Segmentation, bounded_size
from training.train import _smaller, resume, train


@pytest.fixture
def config(toy_folder: Path, tmp_path: Path) -> TrainConfig:
    return replace(EXACT, data=str(toy_folder), out=tmp_path / "run")


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "history.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def no_memory(*_: object, **__: object) -> None:
    raise MemoryError


@pytest.mark.usefixtures("quick", "shrunk")
def test_a_validation_out_of_memory_loses_no_epoch(
    config: TrainConfig, left_alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("training.data.pipeline.fit_image", no_memory)
        with pytest.raises(InputError) as first:
            train(config)
        for word in ("out of memory", "2 images of 128x128", "--eval-size", f"--resume {config.out}", "--batch-size"):
            assert word in str(first.value)
        assert "\n" not in str(first.value)
    assert [p.name for p in (tmp_path / "run" / "backup").iterdir() if p.name != ".lock"] == ["worker0-epoch1.npz"]
    assert (tmp_path / "run" / "weights" / "last.keras").exists()
    resume(tmp_path / "run")
    assert "epoch 1 was trained, but not validated" in capsys.readouterr().out
    assert_same_end(left_alone, tmp_path / "run", epochs=2)
    timeless = [[{k: v for k, v in row.items() if k not in ("images_per_second", "data_wait")} for row in rows(run)]
                for run in (left_alone, tmp_path / "run")]  # fmt: skip
    assert timeless[0] == timeless[1]
    assert list(rows(left_alone)[0]) == list(rows(tmp_path / "run")[0])


@pytest.mark.usefixtures("quick", "shrunk")
def test_pictures_out_of_memory_lose_no_epoch(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.tasks.segmentation.plot_panel", no_memory)
    with pytest.raises(InputError, match=r"that was panel\.png, an image of 128x128; .* --eval-size H W of less$"):
        train(config)
    assert (config.out / "backup" / "worker0-epoch1.json").exists()  # type: ignore[operator]


def test_pictures_see_one_image_at_a_time(config: TrainConfig, tmp_path: Path) -> None:
    task, seen = Segmentation(replace(config, eval_size=(64, 64))), []
    task.source = task.validation = open_source(config.data, "val")

    def model(batch: np.ndarray, *, training: bool) -> np.ndarray:
        seen.append(batch.shape)
        return np.zeros((len(batch), 16, 16, 6), np.float32)

    task.draw(model, tmp_path / "panel.png")  # type: ignore[arg-type]
    assert set(seen) == {(1, 64, 64, 3)}


@pytest.mark.parametrize(("batch_size", "replicas", "offered"), [(8, 2, True), (4, 2, True), (6, 2, False)])
def test_smaller_parts_are_offered_where_a_batch_has_them(batch_size: int, replicas: int, offered: bool) -> None:
    run = Run(Path("run"))
    line = _smaller(run, TrainConfig(batch_size=batch_size), "training", replicas=replicas)
    assert ("--resume run --accumulate 2" in line) == offered
    assert "--batch-size" in line


@pytest.mark.usefixtures("quick", "shrunk")
def test_a_run_goes_on_at_another_size_in_parts_and_for_longer(
    config: TrainConfig, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    config = replace(config, deterministic=False, steps=2, epoch_steps=500)
    run = train(config)
    note = run.backup / "worker0-epoch1.json"
    before = json.loads(note.read_text())
    assert before.pop("size") == [128, 128]  # older backups have none
    note.write_text(json.dumps({**before, "best": 2.0}))  # of another size, and so not to be compared
    words = ["train", "--resume", str(run.root), "--eval-size", "64", "96", "--accumulate", "2", "--steps", "4"]
    main(words)
    output = capsys.readouterr().out
    assert "--eval-size: 128 128 -> 64 96; scores from here on are of this size, and the best weights are" in output
    assert "--steps: 2 -> 4; the rate" in output
    saved = json.loads((run.root / "config.json").read_text())
    assert [saved[n] for n in ("eval_size", "accumulate", "steps", "epoch_steps")] == [[64, 96], 2, 4, 2]
    changed = json.loads((run.root / "environment.json").read_text())[-1]["changed"]
    assert changed == {
        "eval_size": [[128, 128], [64, 96]],
        "accumulate": [1, 2],
        "steps": [2, 4],
        "epoch_steps": [500, 2],
    }
    assert len(rows(run.root)) == 2
    progress = json.loads((run.backup / "worker0-epoch2.json").read_text())
    assert (progress["best"], progress["size"]) == (progress["history"][1]["val_mean_iou"], [64, 96])
    assert int(keras.models.load_model(run.last).optimizer.iterations) == 4


def test_what_a_run_keeps_from_its_start() -> None:
    config = replace(SMALL, eval_size=(64, 64))
    assert with_changes(config, {}) == config
    taken = "takes --accumulate, --epochs, --eval-size, --patience, --steps alone"
    with pytest.raises(InputError, match=rf"{taken}.* Received: --learning-rate"):
        with_changes(config, {"steps": 8, "learning_rate": 1e-3})
    with pytest.raises(InputError, match=r"can only grow, from 4\. Received: 2"):
        with_changes(config, {"steps": 2})
    with pytest.raises(InputError, match="takes --accumulate, --epochs, --patience, --steps alone"):
        with_changes(PretrainConfig(), {"eval_size": (64, 64)})
    assert changes_since(config, config) == []


def test_options_that_were_spelled_out_are_known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    steps: list[int] = []
    monkeypatch.setattr("training.train.train", lambda config, before: steps.append(config.steps) or Run(config.out))
    Run.create(tmp_path / "run", replace(SMALL, data="data", steps=500))
    main(["train", "--resume", str(tmp_path / "run"), "--steps", "40000"])  # the default, and yet explicit
    main(["train", "--resume", str(tmp_path / "run")])
    assert steps == [40_000, 500]


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        ((360, 480), None),
        ((1024, 1024), None),
        ((3000, 4000), (864, 1152)),
        ((4000, 3000), (1152, 864)),
        ((40, 90000), (32, 48544)),
    ],
)
def test_the_size_to_validate_at_has_a_bound(own: tuple[int, int], expected: tuple[int, int] | None) -> None:
    assert bounded_size(own) == (expected or own)


def test_a_large_first_image_is_told(toy_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr("training.data.eval_size._LARGEST_VALIDATION", 100 * 100)
    task = Segmentation(replace(SMALL, data=str(toy_folder)))
    task.open(None)
    assert task.config.eval_size == (96, 96)
    assert "stretched to 96x96: 128x128, as the first one has" in capsys.readouterr().out


def test_a_note_of_another_training_is_not_believed(tmp_path: Path) -> None:
    model = build_segformer("tiny", num_classes=3)
    model.compile(optimizer=SegFormerAdamW(1e-3))
    model.optimizer.build(model.trainable_variables)
    backup = Backup(tmp_path)
    backup.save(model, Progress(epoch=1, trained={"loss": 1.0}))
    backup.note(Progress(epoch=1, best=0.5))
    assert backup.restore(model) == Progress(epoch=1, best=0.5)
    (tmp_path / "worker0-epoch1.npz").unlink()
    backup.save(model, Progress(epoch=1, trained={"loss": 2.0}))
    assert backup.restore(model) == Progress(epoch=1, trained={"loss": 2.0})
    (tmp_path / "worker0-epoch1.json").write_text("{")
    with pytest.raises(InputError, match=r"worker0-epoch1\.json: not a usable note"):
        backup.restore(model)
