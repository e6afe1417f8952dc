"""The page: its parts, and the HTML that is made of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from segformer_tf.errors import InputError, first_line, printable
from training.analysis.report.card import Card
from training.analysis.report.pictures import Row
from training.data.quality.check import Checked


@dataclass(frozen=True)
class Table:
    """Cells of text below the names of columns; those of `words` (by number) are texts, the others numbers."""

    columns: list[str]
    rows: list[list[str]]
    words: frozenset[int] = frozenset({0})


@dataclass(frozen=True)
class ClassScore:
    """A class.

    Attributes:
        name, color: of the class, RGB 0..255.
        ious: of each model, 0..1; None where it never occurs.
        accuracy: of the first model, 0..1, or None.
        share: of the truth's pixels, 0..1.
    """

    name: str
    color: tuple[int, int, int]
    ious: list[float | None]
    accuracy: float | None
    share: float


@dataclass
class Page:
    """All that is shown; a part is empty or None where it could not be made, and `missing` says why.

    Attributes:
        title: what the page is about.
        date: of the page.
        version: of this project.
        models: a short name of each.
        missing: (part, reason).
        cards: names and values, by the name of a model or of its training.
        scored: what the scores are of.
        totals: mean IoU and its like, a row for each model.
        classes: a row for each class.
        curves: (what it shows, picture).
        confusion: shares in percent of each row's truth, as text and number 0..1, for few classes.
        confusion_picture: for many.
        confusions: the most frequent ones.
        images: rows by kind.
        reliability: picture.
        calibration: a row for each model.
        borders, border_classes, border_note: along borders.
        differences, different_images: of two models.
        latency, latency_note, latency_lines: times.
        data: the data check.
    """

    title: str
    date: str
    version: str
    models: list[str] = field(default_factory=list)
    missing: list[tuple[str, str]] = field(default_factory=list)
    cards: dict[str, Card] = field(default_factory=dict)
    scored: str = ""
    totals: Table | None = None
    classes: list[ClassScore] = field(default_factory=list)
    curves: list[tuple[str, str]] = field(default_factory=list)
    confusion: list[tuple[str, list[float | None]]] = field(default_factory=list)
    confusion_picture: str = ""
    confusions: Table | None = None
    images: dict[str, list[Row]] = field(default_factory=dict)
    reliability: str = ""
    calibration: Table | None = None
    borders: Table | None = None
    border_classes: Table | None = None
    border_note: str = ""
    differences: Table | None = None
    different_images: list[Row] = field(default_factory=list)
    latency: Table | None = None
    latency_note: str = ""
    latency_lines: list[str] = field(default_factory=list)
    data: Checked | None = None

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Notes, instead of failing, that a part is missing for want of an input or of a package."""
        try:
            yield
        except InputError as error:
            self.missing.append((name, str(error)))
        except ModuleNotFoundError as error:
            self.missing.append(
                (name, f"{error.name} is not installed; in the repository: pip install '.[analysis,data]'")
            )
        except MemoryError as error:
            self.missing.append((name, f"out of memory ({first_line(error)})"))


def render(page: Page) -> str:
    """The page as HTML that asks for nothing else: no script, no address but those that hold their file.

    Names of classes and files are a stranger's: all text is escaped, and what is not printable is written out.
    """
    environment = Environment(
        loader=PackageLoader("training.analysis.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_printable,
    )
    environment.filters["share"] = lambda value: "-" if value is None else f"{100 * value:.1f}"
    return environment.get_template("page.html.jinja").render(page=page)


def _printable(value: Any) -> Any:
    return printable(value) if type(value) is str else value  # markup is a subclass
