"""The verb `data check`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.table import Table

from segformer_tf.errors import InputError
from segformer_tf.files import atomic, refuse_existing
from segformer_tf.load_tensorflow import import_tensorflow
from segformer_tf.terminal import narrow_table, plain_console
from training.data.quality.report import Report

_ACROSS = 3  # splits side by side, in 80 columns


def check(
    data: str,
    *,
    splits: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    out: Path | None = None,
    overwrite: bool = False,
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> None:
    """Look at a data set before hours are spent on it: classes, sizes, leaks, masks, and options that it suggests.

    Every image and mask is read once. Faults are what `segformer train` refuses, and pictures that two splits share
    (copies, saved again, resized, mirrored, cropped by up to a tenth); with one, the command fails. All else is a
    remark.

        segformer data check data

        segformer data check data --out sheet.png

        segformer data check tfds:toy_shapes --json

    A folder without a manifest is looked at as `segformer train` would read it; nothing is written.

    Parameters
    ----------
    data
        A folder, its manifest, or tfds:NAME.
    splits
        Splits to look at. Default: all of a folder; train and val of tfds:NAME.
    out
        A .png for a contact sheet: samples under their masks, leaks, doubtful masks, and a legend.
    overwrite
        Replace that picture.
    as_json
        Print one JSON object, with every file that is meant, instead of tables.
    """
    if out and out.suffix.lower() != ".png":
        raise InputError(f"--out must end in .png. Received: {out}")
    if out and not overwrite:
        refuse_existing([out])
    import imagehash  # noqa: F401  to fail now if it is missing
    import scipy  # noqa: F401

    if data.startswith("tfds:"):
        import_tensorflow()
    from training.data.quality.check import check_data

    checked = check_data(data, splits)
    if out:
        from training.data.quality.sheet import contact_sheet

        sheet = contact_sheet(checked.sources, checked.facts, checked.report)
        with atomic(out) as part:
            sheet.save(part)
    if as_json:
        print(json.dumps({"data": data, **checked.report.to_dict()}, indent=1))
    else:
        _print(checked.report, checked.notes)
        if out:
            print(f"contact sheet: {out}")
    if faults := checked.report.faults:
        raise InputError(f"{data}: {len(faults)} fault{'s' if len(faults) > 1 else ''}, the first: {faults[0].text}")


def _print(report: Report, notes: list[str]) -> None:
    console = plain_console()
    for note in notes:
        print(note)
    table = narrow_table(("split",), ("images",))
    table.add_column("sizes (height x width)")
    for split, own in report.splits.items():
        sizes = ", ".join(f"{each['height']}x{each['width']} ({each['images']})" for each in own["sizes"])
        more = " …" if sum(each["images"] for each in own["sizes"]) < own["images"] else ""
        table.add_row(split, str(own["images"]), sizes + more)
    console.print(table)
    for table in class_tables(report):
        console.print(table)
    print(
        "cells: 4x4 pixels of an image, the grid on which the network decides; specks: regions below a cell; IoU at "
        "1/4: what a perfect network would score, for the grid"
    )
    for finding in sorted(report.findings, key=lambda each: not each.fault):
        print(f"{'FAULT' if finding.fault else 'remark'} {finding.topic}: {finding.text}")
    for each in report.suggestions:
        print(f"suggestion for {each.verb}: {each.options}  ({each.reason})")


def class_tables(report: Report) -> list[Table]:
    """How much of each split the classes are, a few splits side by side, and how large their regions."""
    splits = list(report.splits)
    shares = [_class_shares(report, splits[i : i + _ACROSS]) for i in range(0, len(splits), _ACROSS)]
    regions = narrow_table(("class",), ("regions", "specks", "median, cells", "IoU at 1/4"))
    for row in report.classes:
        median = "-" if row.median_cells is None else f"{row.median_cells:.1f}"
        kept = "-" if row.iou_at_quarter is None else f"{row.iou_at_quarter:.2f}"
        regions.add_row(row.name, str(row.regions), str(row.specks), median, kept)
    return [*shares, regions]


def _class_shares(report: Report, splits: Sequence[str]) -> Table:
    table = narrow_table(("class",), [title for split in splits for title in (f"{split}, %", "images")])
    for row in report.classes:
        cells = [text for split in splits for text in (_percent(row.share[split]), str(row.images[split]))]
        table.add_row(row.name, *cells)
    return table


def _percent(share: float) -> str:
    return f"{100 * share:.2f}" if share else "-"
