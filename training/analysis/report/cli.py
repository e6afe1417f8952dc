"""The verb `report`."""

from __future__ import annotations

import sys
from pathlib import Path

from segformer_tf.config import check_image_shape
from segformer_tf.errors import InputError
from segformer_tf.files import make_folder, refuse_existing
from segformer_tf.load_tensorflow import import_tensorflow
from training.analysis.report.after_training import REPORT


def report(
    model: Path,
    /,
    *,
    data: str | None = None,
    split: str | None = None,
    against: Path | None = None,
    size: tuple[int, int] | None = None,
    images: int | None = None,
    out: Path | None = None,
    overwrite: bool = False,
) -> None:
    """Write one page on a model: where it is right, where it fails, and what to look at next.

    The page is one HTML file that opens without a network, on a phone too. It has the card, the curves, IoU of each
    class, the confusion matrix, the best, median and worst images with their errors, how far confidences can be
    trusted, IoU along borders and inside, times, and what `segformer data check` says. What cannot be made, because a
    file or a package is missing, is named on the page.

    A run, on its validation split, to RUN/report.html, as `segformer train` writes it at its end:

        segformer report runs/mine

    On the test split, beside its export: where they differ, and how long the file takes:

        segformer report runs/mine --split test --against int8.tflite --out report.html

    A file without a run:

        segformer report int8.tflite --data path/to/folder --out int8.html

    Every image is predicted once, and a few a second time for their pictures. Times are those of --against, or of the
    model, where it is a .tflite.

    Parameters
    ----------
    model
        A run folder (its best weights), a .keras file or a .tflite that `segformer export` wrote.
    data
        Folder of images and masks, its manifest, or tfds:NAME. Default: what the run was trained on.
    split
        Split to score. Default: the run's validation split; of a file, test.
    against
        Another model to compare with, such as the int8 export of the first.
    size
        Height and width that a .keras file's images are stretched to. Default: what the run validated at, or the
        .tflite's of the two; else each image's own.
    images
        Score at most this many images, evenly spaced. Default: all.
    out
        The page. Default: report.html in the run folder, which is replaced.
    overwrite
        Replace --out.
    """
    if images is not None and images < 1:
        raise InputError(f"--images must be positive. Received: {images}")
    if size:
        check_image_shape((None, *size, 3), "--size")
        if all(each.suffix == ".tflite" for each in (model, against) if each):
            raise InputError("--size is for a .keras file or a run; a .tflite sees its own size")
    if not model.exists():
        raise InputError(f"{model}: no such model file or run folder")
    if against and not against.exists():
        raise InputError(f"{against}: no such model file or run folder")
    if not model.is_dir():
        if data is None:
            raise InputError(f"{model}: a file does not say what data to score it on; expected --data DATA")
        if out is None:
            raise InputError(f"{model}: a file has no folder for its report; expected --out FILE.html")
    if out and out.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"--out must end in .html. Received: {out}")
    if out and not overwrite:
        refuse_existing([out])
    import jinja2  # noqa: F401  to fail now if it is missing
    import matplotlib  # noqa: F401
    import scipy  # noqa: F401

    if any(each and each.suffix != ".tflite" for each in (model, against)) or (data or "").startswith("tfds:"):
        import_tensorflow()
    from training.analysis.report.build import Request, write_report

    if out:
        make_folder(out.parent)  # to fail now, and not after the scoring
    request = Request(model=model, data=data, split=split, against=against, size=size, images=images)
    out = out or model / REPORT
    for part, reason in write_report(request, out):
        print(f"missing: {part}: {reason}", file=sys.stderr)
    print(f"report: {out}")
