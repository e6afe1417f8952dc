"""Names of classes and files are printed as they are, whatever brackets they hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.table import Table

from segformer_tf import Labels, build_segformer
from segformer_tf.cli import main
from segformer_tf.terminal import plain_console
from training.cli import _print_scores
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
