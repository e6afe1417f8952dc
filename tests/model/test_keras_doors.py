"""Keras' own doors lead to the right numbers or to a line, never to wrong numbers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from segformer_tf import SegFormer, build_classifier, build_segformer, keras_settings, load_segformer
from segformer_tf.errors import InputError
from tests.helpers import noise

IMPORT = "import segformer_tf.{}"
COMMAND = "import sys; from segformer_tf.cli import script; sys.argv[1:] = ['info', 'no.keras']; script()"


@pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize` method")
@pytest.mark.parametrize(
    ("kind", "mode"),
    [
        *(("model", mode) for mode in ("int8", "int4", "float8")),
        ("model", keras.quantizers.GPTQConfig(dataset=["a"], tokenizer=list)),
        *((kind, "int8") for kind in ("classifier", "wrapped", "layer")),
    ],
)
def test_quantize_is_refused_and_changes_nothing(kind: str, mode: object, tiny: SegFormer) -> None:
    asked = {
        "model": tiny,
        "classifier": build_classifier("tiny", labels=["a", "b"]),
        "wrapped": wrapped(tiny),
        "layer": tiny.encoder.stages[0].blocks[0].attn.q,
    }[kind]
    image, before = noise(1, 64, 64, 3), [np.array(weight) for weight in tiny.weights]
    logits = np.asarray(tiny(image))
    with pytest.raises(InputError, match="`segformer export --recipe int8` makes a quantized file"):
        asked.quantize(**({"mode": mode} if isinstance(mode, str) else {"config": mode}))
    for now, then in zip(tiny.weights, before, strict=True):
        np.testing.assert_array_equal(now, then)
    np.testing.assert_array_equal(tiny(image), logits)


def wrapped(model: SegFormer) -> keras.Model:
    """A model of a user's own around ours, of which Keras quantizes every layer by itself."""
    image = keras.Input((64, 64, 3))
    return keras.Model(image, model(image))


@pytest.mark.parametrize("policy", ["int8_from_float32", "float8_from_float32"])
def test_policies_that_quantize_are_refused(policy: str) -> None:
    for build in (lambda: build_segformer("tiny", num_classes=2, dtype=policy),
                  lambda: build_classifier("tiny", labels=["a", "b"], dtype=policy)):  # fmt: skip
        with pytest.raises(InputError, match=rf"dtype must be of floats\. Received: {policy}"):
            build()


def test_weights_of_before_are_read() -> None:
    model = load_segformer(Path(__file__).parents[2] / "models" / "camvid_b0.keras")
    assert np.abs(np.asarray(model.decoder.linear_c[0].kernel)).max() > 0.1
    assert model.config.image_mean == (123.675, 116.28, 103.53)


@pytest.mark.parametrize("code", [*(IMPORT.format(name) for name in ("model", "classifier", "layers")), COMMAND])
@pytest.mark.parametrize(
    ("variable", "settings", "line"),
    [
        (
            "torch",
            {},
            "Keras' backend must be tensorflow. Received: torch (KERAS_BACKEND); set KERAS_BACKEND=tensorflow",
        ),
        ("nothing", {}, "Received: nothing (KERAS_BACKEND)"),
        (None, {"backend": "jax"}, "Received: jax (HOME/keras.json); set KERAS_BACKEND=tensorflow"),
        (None, {"image_data_format": "channels_first"}, "image_data_format must be channels_last"),
    ],
)
def test_another_backend_is_one_line(
    code: str, variable: str | None, settings: dict, line: str, tmp_path: Path
) -> None:
    (tmp_path / "keras.json").write_text(json.dumps(settings))
    environment = {key: value for key, value in os.environ.items() if key != "KERAS_BACKEND"}
    environment |= {"KERAS_HOME": str(tmp_path), **({"KERAS_BACKEND": variable} if variable else {})}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert line.replace("HOME", str(tmp_path)) in last
    if code == COMMAND:
        assert done.stderr == f"{last}\n"
        assert last.startswith("segformer: Keras' ")


def test_the_variable_comes_before_the_file(tmp_path: Path) -> None:
    (tmp_path / "keras.json").write_text('{"backend": "jax"}')
    environment = {**os.environ, "KERAS_HOME": str(tmp_path), "KERAS_BACKEND": "tensorflow"}
    code = "from segformer_tf import keras_settings; import sys; assert 'keras' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)


def test_a_user_without_a_home_has_kerass_own_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container that runs under a number that has no name."""

    def nobody(number: int) -> None:
        raise KeyError(number)

    for name in ("HOME", "KERAS_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", nobody)
    assert keras_settings._file() == Path("/tmp/.keras/keras.json")
