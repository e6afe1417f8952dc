"""Names of classes and files are printed as they are, whatever brackets they hold."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from rich.table import Table

from segformer_tf import Labels, build_segformer
from segformer_tf.cli import main
from segformer_tf.edge.benchmark.report import files_table, runtimes_table, speed_table
from segformer_tf.edge.benchmark.timing import Benchmark, Conditions, Timing
from segformer_tf.edge.plan.cli import _table as _plan_table
from segformer_tf.edge.plan.estimate import Estimate
from segformer_tf.terminal import narrow_table, plain_console
from training.cli import _print_scores
from training.data.quality.cli import class_tables
from training.data.quality.report import ClassRow, Report
from training.evaluate import Scores
from training.runs.plots import plot_confusion, plot_panel

ROOT = Path(__file__).parents[1]
NAMES = ("back[/ground]", "[red]thing", ":bug: [link=x]")
DOLLARS = (r"$\nothing$", "$100 a $")


def test_scores_of_classes_in_brackets(capsys: pytest.CaptureFixture) -> None:
    _print_scores("[/run] on [bold]test", Scores(Labels.named(NAMES), 1, np.eye(3, dtype=np.int64)))
    output = capsys.readouterr().out
    assert all(name in output for name in (*NAMES, "[/run] on [bold]test"))


def test_info_of_names_in_brackets(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = tmp_path / "[" / "x]"
    folder.mkdir(parents=True)
    build_segformer("tiny", num_classes=3, labels=Labels.named(NAMES)).save(folder / "[red].keras")
    main(["info", str(folder / "[red].keras")])
    output = "".join(line.strip(" │") for line in capsys.readouterr().out.splitlines()).replace(" ", "")
    assert "[red].keras" in output
    assert ", ".join(NAMES).replace(" ", "") in output


def test_titles_and_lines_are_text(capsys: pytest.CaptureFixture) -> None:
    console, table = plain_console(), Table("[/column]", title="[/title]", caption="[/caption]")
    table.add_row("[/cell]")
    console.print(table)
    console.print("[/line]")
    output = capsys.readouterr().out
    assert all(f"[/{word}]" in output for word in ("column", "title", "caption", "cell", "line"))


def test_tables_in_a_pipe_are_not_cut(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    table = Table("path")
    table.add_row("x" * 200)
    plain_console().print(table)
    assert "x" * 200 in capsys.readouterr().out


def test_there_is_one_console() -> None:
    packages = ("segformer_tf", "training", "convert", "examples", "benchmarks")
    files = [path for name in packages for path in (ROOT / name).rglob("*.py")]
    makers = [str(path.relative_to(ROOT)) for path in files if "Console(" in path.read_text("utf-8")]
    assert makers == ["segformer_tf/terminal.py"]


def test_dollars_are_no_formula_in_a_picture(tmp_path: Path) -> None:
    plot_confusion(np.eye(2, dtype=np.int64), tmp_path / "confusion.png", names=DOLLARS)
    plot_panel([[np.zeros((8, 8, 3), np.uint8)] * 2], tmp_path / "panel.png", titles=[DOLLARS])
    assert {path.name for path in tmp_path.iterdir()} == {"confusion.png", "panel.png"}


def test_a_panel_has_a_legend(tmp_path: Path) -> None:
    color, without, panel = (12, 200, 99), tmp_path / "without.png", tmp_path / "panel.png"
    legend = [(name, color) for name in DOLLARS]
    for out, entries in ((without, []), (panel, legend)):
        plot_panel([[np.zeros((8, 8, 3), np.uint8)] * 2], out, titles=[DOLLARS], legend=entries)
    assert not (np.asarray(Image.open(without).convert("RGB")) == color).all(-1).any()
    assert (np.asarray(Image.open(panel).convert("RGB")) == color).all(-1).sum() > 100


def printed(table: Table) -> list[str]:
    """The lines of a table in 80 columns, without the blanks at their ends."""
    console = Console(width=80, file=StringIO(), color_system=None)
    console.print(table)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]


def test_words_fold_and_numbers_stay_whole_in_80_columns() -> None:
    name, numbers = "a_model_of_a_very_long_name_" * 3, [f"{10**i}.{i}" for i in range(2, 9)]
    table = narrow_table(("file", "runtime"), [f"invoke\n{i}" for i in range(7)], title="t" * 200, caption="c " * 100)
    table.add_row(name, "tflite-runtime 2.14.0", *numbers)
    lines = printed(table)
    assert max(map(len, lines)) <= 80
    assert all(number in "\n".join(lines) for number in numbers)
    files = "".join(line[1:11].split(" ")[0] for line in lines)
    assert name in files
    assert "…" not in "".join(lines)


def test_the_tables_of_benchmark_plan_and_data_check_fit_80_columns() -> None:
    timing = Timing(
        path=Path("a_model_of_a_very_long_name_int8.tflite"),
        recipe="dynamic_int8",
        classes=150,
        height=1024,
        width=2048,
        runtime="tflite-runtime",
        runtime_version="2.14.0",
        image_height=1024,
        image_width=2048,
        load=101.1,
        resize=102.2,
        p50=12185.3,
        p90=12186.4,
        mask=1036.5,
        total=12209.7,
        megabytes=123.45,
        memory=2240,
        ops=1432,
        partitions=105,
        outside={f"OPERATION_{i}": i for i in range(9)},
        gmac=107.25,
        share=1.133,
        mean_iou=0.5,
    )
    numbers = dict.fromkeys(("threads", "warm_up", "repeats", "matmul_gflops", "cores"), 2)
    texts = dict.fromkeys(("image", "machine", "system", "date", "python", "numpy", "pillow", "segformer_tf"), "a text")
    result = Benchmark([timing], Conditions(gmac_counted=None, **numbers, **texts))
    estimate = Estimate("b5", "dynamic_int8", (1024, 2048), True, 12000.5, 12185.3, 123.4, 2240.0, 107.25)
    splits = ("train", "val", "test", "another_split")
    row = ClassRow("a class", dict.fromkeys(splits, 0.25), dict.fromkeys(splits, 25210), 123456, 78901, 12345.6, 0.57)
    checked = class_tables(Report({split: {} for split in splits}, [row], [], []))
    for table, cells in (
        (speed_table(result), ("101.1", "102.2", "12185.3", "12186.4", "1036.5", "12209.7", "113.3%")),
        (files_table(result), ("1024x2048", "150", "123.45", "107.25", "1432", "0.5000")),
        (runtimes_table(result), ("2240", "105", "OPERATION_8")),
        (_plan_table([estimate], "a title"), ("1024x2048", "*12185.3", "123.4", "2240", "107.25")),
        (checked[0], ("a class", "25.00", "25210")),
        (checked[1], ("a class", "another_split, %", "25210")),
        (checked[2], ("a class", "123456", "78901", "12345.6", "0.57")),
    ):
        lines = printed(table)
        assert max(map(len, lines)) <= 80
        assert all(cell in "\n".join(lines) for cell in cells)
        assert "…" not in "".join(lines)
