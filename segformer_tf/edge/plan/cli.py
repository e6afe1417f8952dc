"""The verb `plan`, without TensorFlow."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from rich.progress import track
from rich.table import Table

from segformer_tf.config import VARIANTS, check_image_shape
from segformer_tf.edge.benchmark.hardware import cores, processor
from segformer_tf.edge.plan.estimate import COMPUTES_AS, Estimate, estimate, timed_variant
from segformer_tf.edge.plan.graphs import TIMED_RECIPES, shipped_graphs
from segformer_tf.edge.plan.measure import measure
from segformer_tf.edge.runtime import choose_runtime, runtime_version, usual_threads
from segformer_tf.errors import InputError
from segformer_tf.files import atomic, refuse_existing
from segformer_tf.terminal import narrow_table, plain_console

SIZES = ((256, 256), (384, 384), (480, 640), (512, 512), (720, 1280))
# ADE20K, single scale, % (arXiv 2105.15203, Table 1): a guide to how variants compare, with ImageNet weights.
PUBLISHED_MIOU = {"b0": 37.4, "b1": 42.2, "b2": 46.5, "b3": 49.4, "b4": 50.3, "b5": 51.0}

RecipeName = Literal["fp32", "fp16", "weight_int8", "dynamic_int8", "int8"]


def plan(
    *,
    fps: float | None = None,
    size: Annotated[list[tuple[int, int]] | None, Parameter(consume_multiple=True)] = None,
    variant: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    recipe: Annotated[list[RecipeName] | None, Parameter(consume_multiple=True)] = None,
    num_classes: int = 11,
    memory: float | None = None,
    runtime: str | None = None,
    threads: int | None = None,
    repeats: int = 5,
    json_file: Annotated[Path | None, Parameter(name="--json")] = None,
    overwrite: bool = False,
) -> None:
    """Predict which network fits this machine, before one is trained; needs no TensorFlow.

    Times a few small untrained networks that come with the library, half a minute on a laptop, some minutes on a small
    board, and predicts the others from their multiply-adds. Run it on the board that will run the model.

    The columns:

    - ms: per image, from its pixels to a mask of the input's size; a star marks what was timed, the rest is predicted.
    - fps: images per second, one after another.
    - MB: of the file. memory: MB of a process that runs it.
    - GMAC: 10^9 multiply-adds.
    - ADE20K: published mean IoU in %, with ImageNet weights, as a guide to how the variants compare.

    For instance:

        segformer plan --fps 10

        segformer plan --fps 30 --size 256 256 --size 360 480 --recipe int8

        segformer plan --variant b0 --num-classes 150 --runtime tflite-runtime --json plan.json

    Then train what fits: segformer train --variant b0 --eval-size 480 640, and export it at that size.

    Parameters
    ----------
    fps
        Show only what reaches so many images per second. Default: everything.
    size
        Height and width of the input; may be given several times. Default: five usual ones.
    variant
        b0 to b5, or several. Default: all. tiny is for tests.
    recipe
        Recipes of `segformer export`. Default: fp32, dynamic_int8 and int8.
    num_classes
        Classes of the model.
    memory
        Show only what takes so many MB or less.
    runtime
        litert or tflite-runtime. Default: the fastest installed one.
    threads
        CPU threads. Default: OMP_NUM_THREADS, or all cores, four at most, as of predict.
    repeats
        Timed images of each network.
    json_file
        File for all predictions, and what they were made from.
    overwrite
        Replace that file.
    """
    variants, sizes = variant or list(PUBLISHED_MIOU), size or list(SIZES)
    recipes: Sequence[str] = recipe or TIMED_RECIPES
    _check(fps=fps, memory=memory, variants=variants, sizes=sizes, num_classes=num_classes, repeats=repeats)
    if json_file and not overwrite:
        refuse_existing([json_file])
    chosen = choose_runtime(runtime)
    if chosen not in ("litert", "tflite-runtime"):
        raise InputError(f"plan times litert and tflite-runtime. Received: --runtime {chosen}")
    console = plain_console()
    threads, graphs = usual_threads() if threads is None else threads, shipped_graphs()
    timed = {timed_variant(name, (graph.variant for graph in graphs)) for name in variants}
    computed = {COMPUTES_AS[name] for name in recipes}
    graphs = [graph for graph in graphs if graph.variant in timed and graph.recipe in computed]
    with tempfile.TemporaryDirectory() as folder:
        samples = measure(
            graphs,
            Path(folder),
            runtime=chosen,
            threads=threads,
            repeats=repeats,
            watch=lambda networks: track(networks, "timing", console=console, transient=True, auto_refresh=False),
        )
    estimates = [
        estimate(samples, name, how, each, num_classes=num_classes)
        for name in variants
        for each in sizes
        for how in recipes
    ]
    fitting = [e for e in estimates if (fps is None or e.total <= 1e3 / fps) and (memory is None or e.memory <= memory)]
    if json_file:
        machine = {"machine": processor(), "cores": cores(), "threads": threads}
        ran = {"runtime": chosen, "runtime_version": runtime_version(chosen)}
        content = machine | ran | {"timed": [asdict(s) for s in samples], "plan": [asdict(e) for e in estimates]}
        with atomic(json_file) as part:
            part.write_text(json.dumps(content, indent=1), "utf-8")
    if not fitting:
        raise InputError(_nothing_fits(estimates, fps=fps, memory=memory))
    used = f"{threads} thread{'s' * (threads != 1)}"
    console.print(_table(fitting, f"{chosen} {runtime_version(chosen)}, {used}, {num_classes} classes"))
    how = "* timed, the rest predicted" if any(e.timed for e in fitting) else "predicted from timed networks"
    console.print(f"{processor()}, {used} on {cores()} cores; {how}")
    console.print("memory: MB of a process that runs it. ADE20K: published mean IoU in %, with ImageNet weights")
    if left_out := len(estimates) - len(fitting):
        limits = [f"{name} {limit:g}" for name, limit in (("--fps", fps), ("--memory", memory)) if limit is not None]
        console.print(f"{left_out} of {len(estimates)} left out by {' and '.join(limits)}")


def _check(
    *,
    fps: float | None,
    memory: float | None,
    variants: list[str],
    sizes: list[tuple[int, int]],
    num_classes: int,
    repeats: int,
) -> None:
    for name, value in (("--fps", fps), ("--memory", memory)):
        if value is not None and not 0 < value < float("inf"):
            raise InputError(f"{name} must be positive. Received: {value}")
    if unknown := [name for name in variants if name not in VARIANTS]:
        raise InputError(f"--variant must be of {', '.join(VARIANTS)}. Received: {unknown[0]}")
    for size in sizes:
        check_image_shape((None, *size, 3), "--size")
    if not 2 <= num_classes <= 255:
        raise InputError(f"--num-classes must be from 2 to 255. Received: {num_classes}")
    if repeats < 1:
        raise InputError(f"--repeats must be positive. Received: {repeats}")


def _table(estimates: list[Estimate], title: str) -> Table:
    numbers = ("ms", "fps", "MB", "memory", "GMAC", "ADE20K")
    table = narrow_table(("variant", "input", "recipe"), numbers, title=title)
    for e in sorted(estimates, key=lambda e: e.total):
        star = "*" if e.timed else ""
        table.add_row(
            e.variant,
            f"{e.size[0]}x{e.size[1]}",
            e.recipe,
            f"{star}{e.total:.1f}",
            f"{1e3 / e.total:.1f}",
            f"{e.megabytes:.1f}",
            f"{e.memory:.0f}",
            f"{e.gmac:.2f}",
            str(PUBLISHED_MIOU.get(e.variant, "-")),
        )
    return table


def _nothing_fits(estimates: Sequence[Estimate], *, fps: float | None, memory: float | None) -> str:
    fastest, smallest = min(estimates, key=lambda e: e.total), min(estimates, key=lambda e: e.memory)
    nearest = []
    if fps is not None:
        nearest.append(f"the fastest is {_name(fastest)}, {fastest.total:.0f} ms an image")
    if memory is not None:
        nearest.append(f"the smallest is {_name(smallest)}, {smallest.memory:.0f} MB of memory")
    return f"none of {len(estimates)} fits; {', and '.join(nearest)}"


def _name(e: Estimate) -> str:
    return f"{e.variant} at {e.size[0]}x{e.size[1]} as {e.recipe}"
