"""`segformer VERB`; a verb is imported when it runs."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress

from cyclopts import App, Parameter

from segformer_tf import __version__
from segformer_tf.errors import InputError, printable
from segformer_tf.scratch import end_scratch

# The function of each verb, and its line in `segformer --help`, which imports none of them.
VERBS = {
    "train": ("training.cli:train", "Train a SegFormer on a folder of images and masks, or on a TFDS data set."),
    "pretrain": ("training.cli:pretrain", "Pretrain the encoder, on classes of images or on images alone."),
    "evaluate": ("training.cli:evaluate", "Score a model on a split: per-class IoU and mean IoU."),
    "erf": ("training.analysis.erf.cli:erf", "Draw the effective receptive fields of a network's stages and decoder."),
    "features": (
        "training.analysis.features.cli:features",
        "Draw the feature maps of a photo, and what a pixel attends to.",
    ),
    "report": ("training.analysis.report.cli:report", "Write a page on a model: scores, pictures, errors, times."),
    "robustness": (
        "training.analysis.robustness.cli:robustness",
        "Score models side by side on corrupted images, such as noise, blur, fog and frost.",
    ),
    "resolution": (
        "training.analysis.resolution.cli:resolution",
        "Score and time a model at several sizes of its input.",
    ),
    "data import": (
        "training.data.formats.cli:import_labels",
        "Convert labels of labelme, COCO, CVAT, Label Studio, YOLO and others to a folder to train on.",
    ),
    "data check": ("training.data.quality.cli:check", "Look at a data set before hours are spent on it."),
    "import": (
        "convert.interchange.cli:import_checkpoint",
        "Convert a checkpoint of any of five code bases.",
    ),
    "export": ("convert.cli:export", "Convert to a TFLite file, quantized and verified."),
    "predict": ("segformer_tf.edge.predict.cli:predict", "Segment images, videos and cameras; needs no TensorFlow."),
    "doctor": ("segformer_tf.edge.doctor.cli:doctor", "Say why a .tflite would be slow on a delegate; runs nothing."),
    "benchmark": ("segformer_tf.edge.benchmark.cli:benchmark", "Time TFLite files side by side; needs no TensorFlow."),
    "plan": ("segformer_tf.edge.plan.cli:plan", "Predict which network fits this machine; needs no TensorFlow."),
    "serve": ("segformer_tf.edge.serve.cli:serve", "Run a TFLite file in the browser; needs no TensorFlow."),
    "verify": ("convert.compare.cli:verify", "Compare a model with a checkpoint or another model, step by step."),
    "info": ("convert.describe.cli:info", "Say what a model file or a run holds, layer by layer."),
}
# What to do where a module is not installed.
HINTS = {
    "torch": "pip install torch==2.13.0",
    "huggingface_hub": "in the repository: pip install '.[hub]'",
    "jinja2": "in the repository: pip install '.[analysis]'",
    **dict.fromkeys(("yaml", "imagehash", "scipy"), "in the repository: pip install '.[data]'"),
    "rasterio": "in the repository: pip install '.[polygons]' or '.[large]'",
    "cv2": "--tolerance needs it: pip install opencv-python-headless",
    "pycocotools": "--format coco needs it: pip install pycocotools",
    "onnx": "in the repository: pip install '.[onnx]'",
    "onnxruntime": "in the repository: pip install '.[onnx]'",
    "openvino": "in the repository: pip install '.[openvino]'",
    "av": "videos need it, in the repository: pip install '.[video]'",
}
# Verbs of two words, by the first.
GROUPS = {"data": "Bring labels in from other tools, and look at a data set before you train on it."}


def make_app(verb: str | None = None) -> App:
    """The command, with every verb registered by name only.

    Args:
        verb: the one that will run, if any; its help is its docstring, that of the others their line above.
    """
    app = App(
        name="segformer",
        version=__version__,
        default_parameter=Parameter(negative=()),
        suppress_keyboard_interrupt=False,  # `main` prints a line
        help="SegFormer from training to the phone: train, export to TFLite, segment on the device.",
    )
    for name, summary in GROUPS.items():
        app.command(App(name=name, help=summary, default_parameter=app.default_parameter))
    for name, (function, summary) in VERBS.items():
        *group, last = name.split()
        parent = find_verb(app, " ".join(group))
        parent.command(function, name=last, help=None if name == verb else summary)
    return app


def find_verb(app: App, verb: str) -> App:
    """The command of a verb of `VERBS`, or of a group of them; `app` itself for ""."""
    for name in verb.split():
        app = app[name]
    return app


def verb_of(arguments: list[str]) -> str | None:
    """The verb that `arguments` begin with, if any."""
    return next((verb for verb in VERBS if arguments[: len(verb.split())] == verb.split()), None)


def script() -> None:
    """The console script: `main`, then leave at once.

    TensorFlow's data threads can keep an interpreter from ending while they wait for Python. Functions registered with
    `atexit` are not called.
    """
    code: object = 0
    try:
        signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # so that its files are removed too
        main()
    except SystemExit as stop:
        code = stop.code
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the process ends here
    end_scratch()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            stream.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


def main(arguments: list[str] | None = None) -> None:
    """Run the command; ends the process with 0, or with 1 and one line on standard error."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        make_app(verb_of(arguments))(arguments, result_action="return_value")
    except InputError as error:
        print(f"segformer: {printable(str(error))}", file=sys.stderr)
        sys.exit(1)
    except ModuleNotFoundError as error:
        if (name := (error.name or "segformer_tf").split(".")[0]) in ("segformer_tf", "training", "convert"):
            raise
        hint = HINTS.get(name, "in the repository: pip install '.[train,convert]'")
        print(f"segformer: {name} is not installed; {hint}", file=sys.stderr)
        sys.exit(1)
    except BrokenPipeError:  # the reader of our output is gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:  # a full disk, a folder without permission
        print(f"segformer: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("segformer: stopped", file=sys.stderr)
        sys.exit(130)
