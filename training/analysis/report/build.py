"""Makes a report: reads what is there, scores, draws, times, and names what is missing."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from rich.progress import track

from segformer_tf import __version__
from segformer_tf.edge.metadata import find_model_info
from segformer_tf.errors import InputError, counted
from segformer_tf.files import atomic
from segformer_tf.sampling import evenly_spaced
from segformer_tf.terminal import plain_console
from training.analysis.report import tables
from training.analysis.report.card import model_card, run_card
from training.analysis.report.charts import curves, reliability
from training.analysis.report.latency import LATENCY_COLUMNS, latency_table, scored_milliseconds
from training.analysis.report.page import Page, Table, render
from training.analysis.report.pictures import chosen, draw_differences, draw_errors
from training.analysis.report.run_files import read_run
from training.analysis.report.scan import Differences, Findings, scan
from training.data.check_masks import check_split
from training.data.open import Source, open_source
from training.data.quality.check import Checked, check_data
from training.evaluate import Predictor, open_predictor, set_bits
from training.protocols import EvalProtocol


@dataclass(frozen=True, kw_only=True)
class Request:
    """What to report on.

    Attributes:
        model: a run folder, a ``.keras`` or a ``.tflite``.
        data: None for what the run was trained on.
        split: None for the run's validation split, or "test" of a file.
        against: another model, to compare with.
        size: (height, width) that images are stretched to; None for the models' own, or one model's for the other's.
        images: the most that are scored, evenly spaced; None for all.
        checked: the most images that a data check reads; of more there is none.
    """

    model: Path
    data: str | None = None
    split: str | None = None
    against: Path | None = None
    size: tuple[int, int] | None = None
    images: int | None = None
    checked: int = 5000


def build(request: Request) -> Page:
    """Everything that can be shown of a model.

    Raises:
        InputError: no model, or one that is not of this project; data or a split that the request names and that is not
            there; a file that cannot be scored. Whatever else is wrong becomes a line on the page.
    """
    date = datetime.now().astimezone().isoformat(timespec="minutes")
    page = Page(title=request.model.resolve().name, date=date, version=__version__)
    run = read_run(request.model) if request.model.is_dir() else None
    for each in filter(None, (request.model, request.against)):
        _refuse_foreign(each)
    page.models = _names(request)
    if run:
        page.missing += run.missing
        page.cards["The training"] = run_card(run)
        with page.part("Curves"):
            page.curves = curves(run.history) if run.history else []
    data, split = request.data or (run and run.data), request.split or (run.validation_split if run else "test")
    source = open_source(data, split) if data and (request.data or request.split) else None
    with page.part("Scores and pictures"):
        if not data:
            raise InputError("the run does not say what data it was trained on; --data DATA does")
        _score(page, request, source or open_source(data, split), split)
    if not run and not page.totals:
        raise InputError(page.missing[-1][1])  # of a file there is nothing else to say
    with page.part("Data check"):
        page.data = _check(data, request.checked)
    with page.part("Times"):
        _time(page, request)
    return page


def write_report(request: Request, out: Path) -> list[tuple[str, str]]:
    """Build a page and write it to `out`, whole or not at all.

    Returns:
        (part, reason) of what is missing on it.

    Raises:
        InputError: as `build`, or the file cannot be written.
    """
    page = build(request)
    with atomic(out) as part:
        part.write_text(render(page), "utf-8")
    return page.missing


def _names(request: Request) -> list[str]:
    """Short names that tell the two models apart."""
    names = [each.resolve().name for each in (request.model, request.against) if each]
    return names if len(set(names)) == len(names) else [f"{name} ({i})" for i, name in enumerate(names, 1)]


def _refuse_foreign(model: Path) -> None:
    if model.suffix == ".tflite" and find_model_info(model) is None:
        raise InputError(
            f"{model}: a .tflite that `segformer export` did not write; `segformer evaluate` scores it, a report needs "
            "its metadata"
        )


def _score(page: Page, request: Request, source: Source, split: str) -> None:
    with ExitStack() as stack:
        predictors = _open(page, request, source, stack)
        for model, name, predictor in zip(_models(request), page.models, predictors, strict=False):
            page.cards[name] = model_card(model, predictor.protocol, predictor.license)
            notes = (predictor.note, predictor.match.note)
            page.cards[name] += [("note", note) for note in notes if note]
        page.models = page.models[: len(predictors)]
        first = page.cards[page.models[0]]
        if note := set_bits(source, predictors[0].bits):
            first.append(("note", note))
        indices: Sequence[int] = range(len(source))
        if request.images is not None and request.images < len(source):
            indices = evenly_spaced(indices, request.images)
        else:
            first += [("note", note) for note in check_split(source)]
        console = plain_console(stderr=True)
        bar = track(indices, "scoring", console=console, transient=True, disable=not console.is_terminal)
        found, differences = scan(predictors, source, indices=bar)
        some = f"{len(indices)} of {len(source)} images, evenly spaced," if len(indices) < len(source) else ""
        images = some or counted(len(source), "image")
        page.scored = f"{images} of split {split} of {source.name}, each scored at its mask's own size"
        _show(page, predictors, source, found, differences)


def _open(page: Page, request: Request, source: Source, stack: ExitStack) -> list[Predictor]:
    """The model, and the other one if it can be compared; a ``.keras`` takes the size of the ``.tflite`` beside it."""

    def opened(model: Path, size: tuple[int, int] | None) -> Predictor:
        protocol = EvalProtocol(size=None if model.suffix == ".tflite" else size)
        return stack.enter_context(open_predictor(model, runtime=None, labels=source.labels, protocol=protocol))

    first = opened(request.model, None) if request.model.suffix == ".tflite" else None
    second, size = None, request.size
    if request.against:
        with page.part(f"Comparison with {request.against.name}"):
            second = opened(request.against, size or (first.protocol.size if first else None))
    if first is None:
        fixed = second and request.against and request.against.suffix == ".tflite"
        first = opened(request.model, size or (second.protocol.size if second and fixed else None))
    if second and second.bits != first.bits:
        reason = f"it takes images of {second.bits or 16} bits, the model {first.bits or 16}"
        page.missing.append((f"Comparison with {request.against}", reason))
        second = None
    return [first, second] if second else [first]


def _show(
    page: Page, predictors: list[Predictor], source: Source, found: list[Findings], differences: Differences | None
) -> None:
    scores = [each.scores for each in found]
    page.totals, page.classes = tables.totals(page.models, found), tables.class_scores(scores)
    tables.confusion(page, scores[0])
    tables.borders(page, found)
    page.calibration = tables.calibration(page.models, found)
    page.latency_lines = [f"{name}: {scored_milliseconds(each)}" for name, each in zip(page.models, found, strict=True)]
    with page.part("Reliability diagram"):
        page.reliability = reliability([each.calibration for each in found], page.models)
    with page.part("Images"):
        for kind, few in chosen(scores[0]).items():
            page.images[kind] = [draw_errors(predictors[0], source, each) for each in few]
    if differences:
        page.differences = tables.differences(page.models, differences)
        with page.part("Images in which the two differ"):
            page.different_images = draw_differences(predictors, page.models, source, differences)


def _models(request: Request) -> list[Path]:
    return [each for each in (request.model, request.against) if each]


def _check(data: str | None, most: int) -> Checked | None:
    if not data:
        return None  # said above
    import imagehash  # noqa: F401  to fail now if it is missing

    return check_data(data, most=most)


def _time(page: Page, request: Request) -> None:
    files = [each for each in _models(request) if each.suffix == ".tflite"]
    if not files:
        raise InputError("no .tflite to time; export one, and give it with --against FILE.tflite")
    rows, page.latency_note = latency_table(files)
    page.latency = Table(LATENCY_COLUMNS, rows, frozenset({0, 1}))
