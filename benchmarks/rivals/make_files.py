"""Writes a network's files, fp32 and int8, with fresh weights; each runs in a process of its own."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks.files import CLASSES, make_once, write_keras, write_torch
from benchmarks.picture import SIZE, normalized, picture
from benchmarks.rivals.engine import pixels_for
from benchmarks.rivals.networks import QUANTIZER, Network
from segformer_tf.errors import InputError, first_line

CALIBRATION = 4  # pictures
FORMS = ("fp32", "int8")
PARTS = (".json", ".tflite")


def short(reason: str) -> str:
    """An error of a converter in a line: without folders, and without the middle of what is long."""
    line = re.sub(r"\S*site-packages/", "", " ".join(reason.split()))
    return line if len(line) <= 300 else f"{line[:120]} ... {line[-170:]}"


def path_of(network: Network, form: str, cache: Path) -> Path:
    """Where a network's file is kept."""
    return cache / f"{network.key}_{form}.tflite"


def facts_of(path: Path) -> dict[str, Any]:
    """What `make_file` wrote beside a file: parameters, and for int8 how it was quantized."""
    return json.loads(path.with_suffix(".json").read_text("utf-8"))


def make_file(network: Network, form: str, cache: Path) -> None:
    """Make a file of `FORMS`, unless there is one by the installed versions.

    Raises:
        ImportError: a package that makes it is not installed.
        Exception: whatever a converter raises.
    """
    path = path_of(network, form, cache)
    packages = network.packages if form == "fp32" or network.road == "ours" else (*network.packages, *QUANTIZER)
    write: Callable[[Path], None]
    if network.road == "ours":
        write = partial(_write_ours, network.make, form)
    elif form == "fp32":
        write = partial(_write_torch if network.road == "torch" else _write_keras, network)
    else:
        write = partial(_write_int8, path_of(network, "fp32", cache))
    make_once(write, path, packages, PARTS)


def _note(out: Path, **facts: Any) -> None:
    out.with_suffix(".json").write_text(json.dumps(facts) + "\n", "utf-8")


def _write_ours(variant: str, form: str, out: Path) -> None:
    import keras
    from PIL import Image

    from convert.export import export_tflite
    from segformer_tf.model import build_segformer

    keras.utils.set_random_seed(0)
    model = build_segformer(variant, num_classes=CLASSES)
    with TemporaryDirectory() as folder:
        images = [Path(folder) / f"{seed}.png" for seed in range(1, 1 + CALIBRATION)]
        for seed, image in enumerate(images, start=1):
            Image.fromarray(picture(seed)).save(image)
        written = Path(folder) / "model.tflite"
        export_tflite(model, written, recipe=form, size=SIZE, images=images, runtimes=["litert"])
        out.write_bytes(written.read_bytes())
    _note(out, parameters=model.config.parameter_count, how="by this project's recipe int8, calibrated")


def _write_torch(network: Network, out: Path) -> None:
    import torch

    from benchmarks.rivals import torch_networks

    torch.manual_seed(0)
    model = torch_networks.settle(getattr(torch_networks, network.make)(**network.options))
    write_torch(model, out, channels_last=True)
    _note(out, parameters=sum(parameter.numel() for parameter in model.parameters()))


def _write_keras(network: Network, out: Path) -> None:
    import keras

    from benchmarks.rivals import keras_networks

    keras.utils.set_random_seed(0)
    model = getattr(keras_networks, network.make)(**network.options)
    keras_networks.settle(model)
    write_keras(model, lambda image: model(image, training=False), out)
    _note(out, parameters=sum(int(np.prod(v.shape)) for v in model.trainable_variables))


def _write_int8(source: Path, out: Path) -> None:
    """Quantize a float file by ai-edge-quantizer: activations by calibration or, where that fails, as they come."""
    from ai_edge_quantizer import quantizer, recipe

    facts = facts_of(source)
    try:
        content, how = _static(quantizer, recipe, source), "static: weights and activations int8, calibrated"
        _try_to_run(content)
    except Exception as error:  # it raises anything
        content = quantizer.Quantizer(str(source), recipe.dynamic_wi8_afp32()).quantize().quantized_model
        how = f"dynamic range: weights int8; static failed ({type(error).__name__}: {short(first_line(error))})"
    if not content:
        raise InputError("ai-edge-quantizer gave no file")
    out.write_bytes(content)
    _note(out, parameters=facts["parameters"], how=how)


def _try_to_run(content: Any) -> None:
    """Raises what LiteRT raises at the picture; integer divisions by zero are found only so."""
    from segformer_tf.edge.runtime import open_interpreter

    with TemporaryDirectory() as folder:
        (path := Path(folder) / "model.tflite").write_bytes(content)
        interpreter = open_interpreter(path, runtime="litert", threads=1, intact=True)
    details = interpreter.get_input_details()[0]
    interpreter.set_tensor(details["index"], pixels_for(details))
    interpreter.invoke()


def _static(quantizer: Any, recipe: Any, source: Path) -> Any:
    from segformer_tf.edge.runtime import open_interpreter

    maker = quantizer.Quantizer(str(source), recipe.static_wi8_ai8())
    interpreter = open_interpreter(source, runtime="litert", threads=1, intact=True)
    signatures = interpreter.get_signature_list()
    key, names = next(iter((key, value["inputs"]) for key, value in signatures.items()))
    images = [normalized(seed).transpose(0, 2, 3, 1).copy() for seed in range(1, 1 + CALIBRATION)]
    ranges = maker.calibrate({key: [{names[0]: image} for image in images]})
    return maker.quantize(ranges).quantized_model
