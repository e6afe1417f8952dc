"""Verbs `train`, `pretrain` and `evaluate`. TensorFlow is imported after the options are checked."""

from __future__ import annotations

import json
import sys
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.progress import track
from rich.table import Table

from segformer_tf.edge.foreign_options import ForeignOptions
from segformer_tf.errors import InputError
from segformer_tf.files import make_folder, refuse_existing
from segformer_tf.load_tensorflow import import_tensorflow
from segformer_tf.terminal import plain_console
from training.changes import with_changes
from training.config import PretrainConfig, RunConfig, TrainConfig
from training.protocols import EvalProtocol

if TYPE_CHECKING:
    from training.evaluate import Scores


def train(config: Annotated[TrainConfig | None, Parameter(name="*")] = None, *, resume: Path | None = None) -> None:
    """Train a SegFormer on a folder of images and masks, or on a TFDS data set.

    The run folder gets config.json, environment.json, weights/{last,best}.keras, history.csv, curves.png,
    panel.png and TensorBoard logs. At the end of a training on one machine it also gets report.html, of at most 100
    validation images, where the extra `analysis` is installed; `segformer report` writes it of all of them.

    No download, a few minutes:

        segformer train --data tfds:toy_shapes --crop 128 128 --steps 1500 --warmup-steps 50 --learning-rate 1e-3

    Your folder, {train,val,test}/{images,masks} or images/ and masks/ alone, with a dataset.json or without:

        segformer train --data path/to/folder --variant b0 --crop 256 256 --learning-rate 6e-4 --head-multiplier 1

    From pretrained weights, of the hub or of a file; the variant is theirs:

        segformer train --data path/to/folder --weights hf://nvidia/mit-b0

    The same with a few hundred images: at most 100 passes over them, until 15 bring nothing better:

        segformer train --data path/to/folder --weights start.keras --epochs 100 --patience 15 --layer-decay 0.9

    A small network that learns from a larger one, too, which was trained on the same classes:

        segformer train --data path/to/folder --variant b0 --teacher runs/b2-folder

    After a stop or a kill, on one machine or on several; and after a validation ran out of memory:

        segformer train --resume runs/b0-folder

        segformer train --resume runs/b0-folder --eval-size 480 640

    Longer, also where it had ended:

        segformer train --resume runs/b0-folder --steps 60000

    Several machines: the same command on each, with the same --out, and with TF_CONFIG set on each.

    Parameters
    ----------
    resume
        Run folder to go on with, at the first epoch or validation that was not finished. Only --eval-size,
        --accumulate, --patience and a larger --steps or --epochs may be given with it; they are written into the
        run's config.json. The rate depends on the step and on --steps, so with more steps it jumps up to that of the
        longer schedule; --patience counts anew.
    """
    _run(config, resume, TrainConfig)


def pretrain(
    config: Annotated[PretrainConfig | None, Parameter(name="*")] = None, *, resume: Path | None = None
) -> None:
    """Pretrain the encoder without masks: as a classifier of images, or without any labels.

    The run folder is like that of `segformer train`. The score that selects the best weights is top-1 on the validation
    split; with --masked it is "explained", how much of what was hidden was painted: 1 is all, 0 no more than the mean
    color.

    Your photographs, one folder for each class, the same classes in both splits: photos/{train,val}/CLASS/*.jpg

        segformer pretrain --data photos/ --variant b0 --out runs/pre

    Then the segmenter of the same variant, with that encoder and a fresh decoder:

        segformer train --data street/ --variant b0 --weights runs/pre

    A TFDS set with one image and one label; a set with a train split alone is cut in two:

        segformer pretrain --data tfds:imagenet2012 --precision mixed_float16 --batch-size 1024 --learning-rate 1e-3

        segformer pretrain --data tfds:tf_flowers --train-split "train[:90%]" --val-split "train[90%:]"

    Without labels, on all images of any folders, from which every 20th is held out; of folders that have a train and a
    val split, on those. Blocks of 32x32 pixels are hidden, 60 % of them, and the network paints them:

        segformer pretrain --masked --data photos/ --more-data street/ clips/ --variant b0 --out runs/pre

    After a stop or a kill, on one machine or on several:

        segformer pretrain --resume runs/pre

    The paper says only that its encoders saw ImageNet-1K. Encoders of this kind follow DeiT's recipe: 300 epochs of
    AdamW (375,000 steps) with batches of 1024, a peak rate of 1e-3 after 5 epochs of warm-up, cosine decay, weight
    decay 0.05, label smoothing 0.1, mixup and more. Here the rate falls linearly, as in `segformer train`, and images
    are cropped at random (8 to 100 % of their area), flipped and changed in color (not with --masked, whose recipe is
    SimMIM's, arXiv 2111.09886: 800 epochs). Validation resizes the shorter side to --crop / 0.875 and takes the center.

    Parameters
    ----------
    resume
        Run folder to go on with, at the first epoch or validation that was not finished. Only --accumulate,
        --patience and a larger --steps or --epochs may be given with it, as in `segformer train`.
    """
    _run(config, resume, PretrainConfig)


def _run(config: RunConfig | None, root: Path | None, kind: type[RunConfig]) -> None:
    before = kind.read(root) if root else None
    if before:
        config = with_changes(before, {name: getattr(config, name) for name in config.explicit} if config else {})
    if not (config and config.data):
        raise InputError("expected --data DATA and options of a new run, or --resume RUN")
    config.check()
    import_tensorflow()
    from training.distributed.strategy import this_place
    from training.train import train

    root = train(config, before).root
    print(f"run folder: {root}")
    if isinstance(config, TrainConfig) and this_place().count == 1:
        from training.analysis.report.after_training import report_after_training

        report_after_training(root)


def evaluate(
    model: Path,
    /,
    *,
    data: str,
    split: str = "test",
    protocol: Annotated[EvalProtocol | None, Parameter(name="*")] = None,
    runtime: str | None = None,
    foreign: Annotated[ForeignOptions | None, Parameter(name="*")] = None,
    picture: Path | None = None,
    worst: int | None = None,
    out: Path | None = None,
    overwrite: bool = False,
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> None:
    """Score a model on a split: per-class IoU and mean IoU.

    Classes are matched by name, in any order; other names are refused. Images are stretched to the model's size, and
    logits upsampled once to the mask's own size:

        segformer evaluate runs/b0-camvid --data path/to/folder --split test

        segformer evaluate int8.tflite --data path/to/folder --runtime tflite-runtime --json

    The twelve images that it does worst on, as pictures:

        segformer evaluate int8.tflite --data path/to/folder --worst 12 --out sheet/

    ADE20K as the authors score it, at a single scale, then at several and mirrored:

        segformer evaluate ade.keras --data tfds:ade20k --split val --resize 2048 512 --align 32 --protocol paper

        segformer evaluate ade.keras --data tfds:ade20k --split val --resize 2048 512 --align 32 --protocol paper \\
            --scales 0.75 0.875 1 1.125 1.25 --flip

    Cityscapes, by windows of 1024 pixels with a stride of 768, then at several scales and mirrored:

        segformer evaluate city.keras --data tfds:cityscapes --split val --slide 1024 768 --protocol paper

        segformer evaluate city.keras --data tfds:cityscapes --split val --slide 1024 768 --protocol paper \\
            --scales 0.5 0.75 1 1.25 1.5 1.75 2 --flip

    A .tflite takes images of one size. It allows --flip and --protocol, and --slide if its windows have that size;
    --size, --resize, --align and --scales need --slide. A .tflite of another origin that takes images of any size needs
    --size, or the windows of --slide. What `predict --slide --scale 0.5` does, for a .tflite of 576x768 pixels:

        segformer evaluate int8.tflite --data path/to/folder --slide 576 768 432 --scales 0.5

    Parameters
    ----------
    model
        A .tflite, a .keras file or a run folder (its best weights).
    data
        Folder of images and masks, its manifest, or tfds:NAME.
    split
        Split to score.
    runtime
        litert, tflite-runtime, litert-gpu or litert-fp16, for a .tflite. Default: the faster installed one on the CPU.
    picture
        A .png for the confusion matrix, each row in shares of its class.
    worst
        Draw this many images, those of the lowest mean IoU (over the classes in truth or prediction): image, truth,
        prediction and errors. They are predicted once more, so that no masks are kept; the sheet needs 3 MB for each.
    out
        Folder for these pictures: sheet.png, and each image apart.
    overwrite
        Replace these pictures.
    as_json
        Print one JSON object instead of a table, with the IoU of each image.
    """
    if picture and picture.suffix != ".png":
        raise InputError(f"--picture must end in .png. Received: {picture}")
    if (worst is None) != (out is None):
        raise InputError("--worst and --out go together: a number of images, and a folder for their pictures")
    if runtime is not None and model.suffix != ".tflite":
        raise InputError(f"{model}: runs in Keras; --runtime is for a .tflite. Received: {runtime}")
    if worst is not None and worst < 1:
        raise InputError(f"--worst must be positive. Received: {worst}")
    if not overwrite:
        refuse_existing(path for path in (picture, out) if path)
    protocol = protocol or EvalProtocol()
    protocol.check()
    if model.suffix != ".tflite" or data.startswith("tfds:"):
        import_tensorflow()
    if picture:
        import matplotlib  # noqa: F401  to fail now if it is missing, and not after the evaluation
    from training.data.check_masks import check_split
    from training.data.open import open_source
    from training.evaluate import evaluate as score_split
    from training.evaluate import open_predictor, set_bits

    source = open_source(data, split)
    console = plain_console(stderr=True)
    quiet = not console.is_terminal
    indices = track(range(len(source)), "evaluating", console=console, transient=True, disable=quiet)
    contract = (foreign or ForeignOptions()).contract(None)
    opened = open_predictor(model, runtime=runtime, labels=source.labels, protocol=protocol, contract=contract)
    with opened as predict:
        if predict.license:
            print(f"{model}: {predict.license}", file=sys.stderr)
        if note := set_bits(source, predict.bits):
            print(note, file=sys.stderr)
        for note in filter(None, (predict.note, predict.match.note)):
            print(f"{model}: {note}", file=sys.stderr)
        for note in check_split(source):
            print(note, file=sys.stderr)
        if out:
            make_folder(out)  # to fail now, and not after the evaluation
        scores = score_split(predict, source, indices=indices)
        if worst and out:
            from training.worst import draw_worst

            print(draw_worst(predict, source, scores, count=worst, out=out), file=sys.stderr)
    if picture:
        from training.runs.plots import plot_confusion

        plot_confusion(scores.matrix, picture, names=source.labels.names)
    if as_json:
        inputs = {"model": str(model), "data": data, "split": split, "protocol": predict.protocol.to_dict()}
        print(json.dumps({**inputs, **scores.to_dict()}, indent=1))
        return
    _print_scores(f"{model} on {split} of {source.name}, {scores.images} images {predict.protocol}".rstrip(), scores)


def _print_scores(title: str, scores: Scores) -> None:
    console = plain_console()
    console.print(title)
    table = Table(show_footer=True)
    table.add_column("class", footer="mean")
    table.add_column("IoU", footer=f"{scores.mean_iou:.4f}", justify="right")
    table.add_column("accuracy", footer=f"{scores.mean_accuracy:.4f}", justify="right")
    accuracy = scores.per_class_accuracy
    for name, iou in scores.per_class.items():
        table.add_row(name, *("-" if isnan(value) else f"{value:.4f}" for value in (iou, accuracy[name])))
    console.print(table)
    console.print(f"pixel accuracy {scores.pixel_accuracy:.4f}")
    if any(isnan(value) for values in (scores.per_class, accuracy) for value in values.values()):
        console.print("-: not in the mean; neither in masks nor predictions (IoU), or not in masks (accuracy)")
