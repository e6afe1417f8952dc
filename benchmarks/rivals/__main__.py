"""SegFormer beside SETR, PVTv2, Swin, DeepLabv3+, EfficientViT and others: size, time, memory, published accuracy.

pip install '.[train,convert,rivals]'
python -m benchmarks.rivals
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter, run
from rich.progress import track
from rich.text import Text

from benchmarks.files import is_made
from benchmarks.remote import Remote
from benchmarks.rivals.chart import draw
from benchmarks.rivals.make_files import FORMS, facts_of, make_file, path_of, short
from benchmarks.rivals.networks import NETWORKS, Network
from benchmarks.rivals.page import update_page
from benchmarks.rivals.race import Entry, race
from benchmarks.rivals.results import TIMES, Row, read_results, verdict, write_results
from benchmarks.rivals.table import failures, sources, table
from segformer_tf.edge.benchmark.hardware import processor
from segformer_tf.errors import InputError
from segformer_tf.files import atomic, make_folder
from segformer_tf.terminal import plain_console

Job = tuple[Network, str]


def main(
    *,
    only: Annotated[list[str] | None, Parameter(consume_multiple=True, negative=())] = None,
    rounds: int = 5,
    turns: int = 3,
    threads: int = 2,
    make: bool = True,
    race_them: Annotated[bool, Parameter(name="--race")] = True,
    cache: Path = Path("runs/rivals"),
    picture: Path | None = None,
    page: Path | None = None,
) -> None:
    """Compare networks for segmentation on LiteRT and this CPU, each as fp32 and int8, and draw the frontier.

    Images are 512x512, classes 150, the batch 1, the weights random: speed does not depend on them. Accuracy is what
    the networks' authors published for ADE20K. Times are from a picture in memory to the logits, whose grid is the
    network's own, and to the class mask of 512x512, by one function for all.

    The files are made in the first run, each in a process of its own, and kept: minutes each. What cannot be made or
    run is a row with its error, and is tried again once that row's .error file is removed, or a package has changed.
    In the race each file gets a fresh process in each round, so that one is in memory at a time. After Ctrl-C the
    same command goes on with the files; what a race has measured until then is printed and kept.

    For instance:

        python -m benchmarks.rivals --picture docs/rivals.png --page docs/rivals.md

        python -m benchmarks.rivals --only ours_b0 efficientvit_b1 pvtv2_b0 --rounds 10

        python -m benchmarks.rivals --no-make --no-race

    Parameters
    ----------
    only
        Networks, by the keys that --only nothing lists. Default: all.
    rounds
        Rounds of all files; one that takes more than 2 s takes part in the first three.
    turns
        Measurements of a file in a round.
    threads
        CPU threads.
    make
        Make files that are missing.
    race_them
        Measure; otherwise print the last results again.
    cache
        Folder of the files, results.json, and log.txt with what the processes print.
    picture
        PNG to draw.
    page
        Markdown file to write the table into, between its marks.
    """
    networks = _chosen(only)
    if min(rounds, turns, threads) < 1:
        raise InputError(f"--rounds, --turns and --threads must be positive. Received: {rounds}, {turns} and {threads}")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    make_folder(cache)
    results = cache / "results.json"
    jobs = [(network, form) for network in networks for form in FORMS]
    if make:
        _make(jobs, cache)
    if race_them:
        rows, about = _race(jobs, cache, rounds=rounds, turns=turns, threads=threads)
        write_results(results, rows, about)
    elif not results.is_file():
        raise InputError(f"{results}: no results yet; leave out --no-race")
    rows, about = read_results(results)
    _print(rows, about)
    if page:
        update_page(page, rows, about)
    if picture:
        draw(rows, picture, f"LiteRT {about['litert']}, {about['threads']} threads, {about['date'][:10]}, "
             f"{about['processor']}\nRandom weights; accuracy as published, single scale.")  # fmt: skip


def _chosen(only: Sequence[str] | None) -> list[Network]:
    by_key = {network.key: network for network in NETWORKS}
    if only is None:
        return list(NETWORKS)
    if not only or (unknown := [key for key in only if key not in by_key]):
        seen = f" Received: {unknown[0]}" if only else ""
        raise InputError(f"--only must be of {', '.join(by_key)}.{seen}")
    return [by_key[key] for key in only]


def _make(jobs: Sequence[Job], cache: Path) -> None:
    """Make what is missing; a failure is kept beside where the file would be, with the versions it was seen with."""
    console = plain_console()
    for network, form in jobs:
        error = _error_file(network, form, cache)
        packages = _installed(network.packages)
        if error.is_file() and error.read_text("utf-8").startswith(packages + "\n"):
            continue
        name, reason = f"{network.name}, {form}", ""
        if form != "fp32" and network.road != "ours" and not is_made(path_of(network, "fp32", cache)):
            continue  # the row says why its float file is missing
        with console.status(Text(name)):
            try:
                Remote(make_file, network, form, cache, log=cache / "log.txt").close()
            except InputError as failure:
                reason = short(str(failure))
        error.unlink(missing_ok=True)
        if reason:
            with atomic(error) as part:
                part.write_text(f"{packages}\n{reason}\n", "utf-8")
            console.print(Text(f"{name}: {reason}"))


def _error_file(network: Network, form: str, cache: Path) -> Path:
    return path_of(network, form, cache).with_suffix(".error")


def _installed(packages: Iterable[str]) -> str:
    found = []
    for package in (*packages, "ai-edge-quantizer"):
        try:
            found.append(f"{package} {version(package)}")
        except ImportError:  # PackageNotFoundError
            found.append(f"{package} none")
    return ", ".join(found)


def _race(
    jobs: Sequence[Job], cache: Path, *, rounds: int, turns: int, threads: int
) -> tuple[list[Row], dict[str, Any]]:
    entries: dict[tuple[str, str], Entry] = {}
    for network, form in jobs:
        path = path_of(network, form, cache)
        if is_made(path):  # and not one whose making anew failed
            entries[network.key, form] = Entry(path, network.road == "ours")
    if not entries:
        raise InputError(f"{cache}: there is no file to measure; leave out --no-make")
    about: dict[str, Any] = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": threads,
        "rounds": rounds,
        "litert": version("ai-edge-litert"),
    }
    watch = partial(track, description="measuring", transient=True, total=rounds * len(entries))
    try:
        race(list(entries.values()), rounds=rounds, turns=turns, threads=threads, log=cache / "log.txt", watch=watch)
    except KeyboardInterrupt:
        if not any(entry.seconds for entry in entries.values()):
            raise
        print("stopped: these are the results until then", file=sys.stderr)
    return [_row(network, form, entries.get((network.key, form)), cache) for network, form in jobs], about


def _row(network: Network, form: str, entry: Entry | None, cache: Path) -> Row:
    import numpy as np

    known: dict[str, Any] = {}
    if published := network.published:
        known |= {"mean_iou": published.mean_iou, "source": published.source}
        known |= {"published_parameters": published.parameters, "published_gmac": published.gmac}
    start: dict[str, Any] = {"key": network.key, "name": network.name, "form": form, **known}
    if entry is None:
        error = _error_file(network, form, cache)
        reason = error.read_text("utf-8").partition("\n")[2].strip() if error.is_file() else "not made"
        return Row(**start, error=reason)
    beside = facts_of(entry.path)
    more: dict[str, Any] = {
        "how": beside.get("how", "") if form == "int8" else "",
        "parameters": beside["parameters"] / 1e6,
        "megabytes": entry.path.stat().st_size / 1e6,
    }
    if entry.error or entry.facts is None:
        return Row(**start, **more, error=entry.error or "not measured")
    facts, (logits, mask, cpu) = entry.facts, 1e3 * np.median(entry.seconds, axis=0)
    return Row(
        **start,
        **more,
        grid=facts.grid,
        gmac=facts.gmac,
        memory=facts.memory / 1e6,
        partitions=facts.partitions,
        outside=facts.outside,
        logits_ms=float(logits),
        mask_ms=float(mask),
        cpu_ms=float(cpu),
        turns=len(entry.seconds),
    )


def _print(rows: Sequence[Row], about: dict[str, Any]) -> None:
    console = plain_console()
    console.print(table(rows))
    console.print(Text(", ".join(f"{key} {value}" for key, value in about.items())))
    for line in (*sources(rows), *failures(rows)):
        console.print(Text(line))
    for row in rows:
        if (row.key, row.form) == ("ours_b0", "int8") and row.placed:
            for time in TIMES:
                console.print(Text(verdict(row, rows, time)))


if __name__ == "__main__":
    try:
        run(main)
    except InputError as error:
        sys.exit(f"rivals: {error}")
