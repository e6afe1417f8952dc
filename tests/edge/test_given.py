"""What `predict` makes of its command line: never the repository's model where another was meant."""

from __future__ import annotations

import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segformer_tf.cli import make_app
from segformer_tf.edge.predict import arguments as predict_arguments
from segformer_tf.edge.predict.arguments import model_and_images
from segformer_tf.errors import InputError


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with photo.jpg and photos/a.png, and a model that images alone would take."""
    (tmp_path / "photos").mkdir()
    for name in ("photo.jpg", "photos/a.png", "photos/._a.png"):
        Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / name)
    (tmp_path / "default.tflite").touch()
    monkeypatch.setitem(predict_arguments.MODELS, "clothing", Path("default.tflite"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def chosen(*names: str, model: str | None = None) -> tuple[str, list[str]]:
    path, images = model_and_images([Path(name) for name in names], model)
    return str(path), [str(path) for path in images]


def refused(*names: str, model: str | None = None) -> str:
    with pytest.raises(InputError) as caught:
        chosen(*names, model=model)
    (message,) = str(caught.value).splitlines()
    return message


def test_a_model_of_the_clone_by_name(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "other.tflite").touch()
    monkeypatch.setitem(predict_arguments.MODELS, "street", Path("other.tflite"))
    assert chosen("photo.jpg", model="street") == ("other.tflite", ["photo.jpg"])
    assert "must be one of clothing, nuclei, street; a file needs no option" in refused("photo.jpg", model="city")
    assert "is another model than default.tflite" in refused("default.tflite", "photo.jpg", model="street")


def test_a_model_and_images(here: Path, capsys: pytest.CaptureFixture) -> None:
    assert chosen("m.tflite", "photo.jpg", "photos") == ("m.tflite", ["photo.jpg", "photos/a.png"])
    assert chosen("photo.jpg", "m.TFLITE") == ("m.TFLITE", ["photo.jpg"])
    assert capsys.readouterr().err == ""
    assert chosen("photo.jpg", "photos") == ("default.tflite", ["photo.jpg", "photos/a.png"])
    assert capsys.readouterr().err == "model: default.tflite (--model nuclei or street)\n"
    assert "no image given" in refused("m.tflite")
    assert "no image given" in refused()
    assert "expected one model. Received: m.tflite and n.tflite" in refused("m.tflite", "n.tflite", "photo.jpg")
    assert "none.jpg: no such file or folder" in refused("none.jpg")


@pytest.mark.parametrize("kept", ["weights/best.keras", "environment.json"])
def test_a_run_ends_with_the_line_that_exports_it(here: Path, kept: str) -> None:
    run = here / "runs" / "mine"
    (run / kept).parent.mkdir(parents=True)
    (run / kept).touch()
    Image.new("RGB", (8, 8)).save(run / "curves.png")
    for names in (("runs/mine", "photo.jpg"), ("photo.jpg", "runs/mine"), ("runs/mine",), ("m.tflite", "runs/mine")):
        message = refused(*names)
        assert message.startswith("runs/mine: a run folder; predict runs .tflite files only")
        assert message.endswith("segformer export runs/mine --out mine.tflite")
    (here / "model.keras").touch()
    for names in (("model.keras", "photo.jpg"), ("photo.jpg", "model.keras")):
        assert refused(*names).endswith("segformer export model.keras --out model.tflite --size 512 512")
    assert "no image" in refused("runs")
    (here / "my run" / "weights").mkdir(parents=True)
    (here / "my run" / "weights" / "last.keras").touch()
    for name in ("my run", "model.keras"):  # the line is one that the command takes
        verb, *arguments = shlex.split(refused(name).split("segformer ")[-1])
        _, bound, _ = make_app(verb).parse_args([verb, *arguments], exit_on_error=False, print_error=False)
        assert bound.arguments["model"] == Path(name)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("model.onnx", "an ONNX model"),
        ("frozen.pb", "a TensorFlow graph"),
        ("old.H5", "a Keras HDF5 file"),
        ("b0.pth", "a PyTorch checkpoint"),
        ("b0.pt", "a PyTorch checkpoint"),
        ("model.safetensors", "a checkpoint"),
    ],
)
def test_other_models_are_named(here: Path, name: str, kind: str) -> None:
    (here / name).touch()
    for names in ((name, "photo.jpg"), ("photo.jpg", name), (name,)):
        assert refused(*names).startswith(f"{name}: {kind}; predict runs .tflite files only")


def test_folders_of_other_models_are_named(here: Path) -> None:
    assert "segformer import b0.pth --out b0.keras, then segformer export b0.keras" in refused("b0.pth")
    for name, file, kind in (("saved", "saved_model.pb", "a SavedModel"), ("hub", "config.json", "a transformers")):
        (here / name).mkdir()
        (here / name / file).touch()
        assert refused(name, "photo.jpg").startswith(f"{name}: {kind}")


def test_without_a_model_nothing_but_images_will_do(here: Path) -> None:
    (here / "notes.txt").touch()
    assert refused("notes.txt", "photo.jpg").startswith("notes.txt: neither a .tflite nor an image")
    (here / "photos" / "mine.tflite").touch()
    assert refused("photos").startswith("photos: a folder with a model in it, mine.tflite; name the model")
    assert chosen("photos/mine.tflite", "photos") == ("photos/mine.tflite", ["photos/a.png"])
