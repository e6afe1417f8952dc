"""`python -m benchmarks.programs`, with programs that are installed and such that are not."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from benchmarks.programs import programs
from benchmarks.programs.__main__ import main
from benchmarks.programs.programs import Answer, Input, Job, input_of, on_tflite
from benchmarks.programs.table import COLUMNS, Turn, compare_turn, rows_of
from convert.sample_images import synthetic_images
from segformer_tf import SegFormer
from segformer_tf.errors import InputError


def test_what_is_installed_is_compared_and_what_is_not_says_how_to_get_it(
    tiny: SegFormer,
    tiny_files: dict,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    tiny.save(tmp_path / "model.keras")
    monkeypatch.setattr(programs, "MEDIAPIPE", tmp_path / "none")
    monkeypatch.setattr(programs, "WEB", tmp_path / "none")
    monkeypatch.setattr(programs.shutil, "which", lambda name: name)
    wanted, table = ["litert", "mediapipe", "litert.js-wasm"], tmp_path / "table.csv"
    main(tmp_path / "model.keras", tiny_files["fp32"], programs=wanted, rounds=1, calls=1, csv_file=table)
    header, litert, *others = csv.reader(table.read_text("utf-8").splitlines())
    assert tuple(header) == COLUMNS
    assert (litert[0], litert[3], litert[5]) == ("litert", "100.00%", "1.00x")
    assert float(litert[2]) < 1e-5
    assert float(litert[4]) > 0
    assert [row[:2] for row in others] == [
        ["mediapipe", "not run: not installed: make mediapipe"],
        ["litert.js-wasm", "not run: not installed: npm ci, in web/"],
    ]
    printed = capsys.readouterr().out
    assert printed.startswith("fp32.tflite, 97x161, fp32, 1 x 1 calls, threads: 1")
    assert all(f"| {' | '.join(row)} |" in printed for row in (header, litert, *others))


def test_the_input_of_a_file(tiny_files: dict) -> None:
    assert input_of(tiny_files["fp32"]) == Input((97, 161), np.dtype(np.float32))
    assert input_of(tiny_files["int8"]) == Input((97, 161), np.dtype(np.uint8))


def test_a_program_that_refuses_or_crashes_is_said_in_a_line(
    tiny_files: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (photo,) = synthetic_images((50, 70), 1)
    damaged = tmp_path / "damaged.tflite"
    damaged.write_bytes(tiny_files["fp32"].read_bytes().replace(b"TFL3", b"TFL4"))
    job = Job(damaged, input_of(tiny_files["fp32"]), photo, tmp_path, 1, 1)
    with pytest.raises(InputError, match=r"damaged.tflite: not a TFLite file$"):
        on_tflite(job, runtime="litert")
    with pytest.raises(InputError, match=r"^crashed \(SIGSEGV\)$"):
        programs._output(["/bin/sh", "-c", "kill -SEGV $$"])


def test_rows_are_medians_and_means() -> None:
    logits = np.zeros((2, 3, 4), np.float32)
    logits[..., 1] = 1
    photo = np.zeros((8, 12, 3), np.uint8)
    job = Job(Path(), Input((8, 12), np.dtype(np.uint8)), photo, Path(), 1, 1)
    mask = job.mask_of(logits)
    assert set(mask.flat) == {1}
    mask[0] = 2
    turn = compare_turn(Answer(3.0, "1", None, {"category mask": mask, "other": mask * 0}), job, logits)
    assert turn == Turn(3.0, "1", None, {"category mask": 7 / 8, "other": 0.0})
    with pytest.raises(InputError, match=r"gives logits \(2, 3, 3\), Keras \(2, 3, 4\)"):
        compare_turn(Answer(1.0, "1", logits[..., :3], {}), job, logits)
    litert = [Turn(ms, "2", error, {"": 1.0}) for ms, error in ((1.0, 0.1), (9.0, 0.3), (2.0, 0.2))]
    assert rows_of({"mediapipe": [turn], "litert": litert, "gone": litert}, {"gone": "gone"}) == [
        ["mediapipe, category mask", "1", "", "87.50%", "3.0", "1.50x"],
        ["mediapipe, other", "1", "", "0.00%", "", ""],
        ["litert", "2", "2.0e-01", "100.00%", "2.0", "1.00x"],
        ["gone", "not run: gone", "", "", "", ""],
    ]


@pytest.mark.parametrize(
    ("options", "line"),
    [({"rounds": 0}, "--rounds, --calls and --threads must be positive"), ({"programs": ["x"]}, "--programs must be")],
)
def test_bad_options_get_a_line(options: dict, line: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=line):
        main(tmp_path / "model.keras", tmp_path / "model.tflite", **options)
