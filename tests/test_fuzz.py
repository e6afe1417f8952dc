"""Random bytes, sizes and kinds into everything that reads a stranger's file: an `InputError` or a result.

`make fuzz` runs these for ten minutes with fresh examples; `make test` runs a fixed few.
"""

from __future__ import annotations

import io
import json
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import av
import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras.src.saving import saving_lib
from PIL import Image
from safetensors.numpy import load_file

from segformer_tf import SegFormer, SegFormerConfig, load_segformer, variant_config
from segformer_tf.checkpoints.importer import read_checkpoint
from segformer_tf.checkpoints.preprocessor import FILE as PREPROCESSOR_FILE
from segformer_tf.checkpoints.preprocessor import read_preprocessor
from segformer_tf.config import MIN_IMAGE_SIDE
from segformer_tf.edge import fit_image, load_image, logits_to_mask
from segformer_tf.edge.metadata import find_model_info
from segformer_tf.edge.predict.geotiff import open_tiff
from segformer_tf.edge.predict.video.source import open_source
from segformer_tf.edge.tflite.model import TFLiteModel
from segformer_tf.errors import InputError
from segformer_tf.image import is_deep_file, largest_value_of
from segformer_tf.labels import IGNORE_ID, Labels
from tests.helpers import noise
from training.data.augment import augment
from training.data.folder.manifest import Manifest
from training.data.folder.source import FolderSource
from training.data.masks import read_mask

SOME = settings(max_examples=max(1, settings.default.max_examples // 4))  # for what takes long

PIXELS = np.random.default_rng(0).integers(0, 256, (13, 17, 3), np.uint8)
SIDES = st.integers(1, 200)


def picture(kind: str, mode: str) -> bytes:
    stream = io.BytesIO()
    image = Image.fromarray(PIXELS)
    (image.convert("I").convert(mode) if mode == "I;16" else image.convert(mode)).save(stream, kind)
    return stream.getvalue()


PICTURES = [
    picture(kind, mode)
    for kind, modes in {
        "PNG": ("RGB", "L", "P", "1", "RGBA", "LA", "I;16"),
        "JPEG": ("RGB", "L", "CMYK"),
        "BMP": ("RGB", "P", "1"),
        "WEBP": ("RGB", "RGBA"),
        "TIFF": ("RGB", "CMYK", "I", "I;16", "F", "P"),
        "PPM": ("RGB", "L"),
        "GIF": ("P",),
        "EPS": ("RGB",),
    }.items()
    for mode in modes
]


class Damage(NamedTuple):
    """What happens to a whole file: a few bytes changed, the rest cut off, something put behind it."""

    edits: list[tuple[int, float, bool, int]]  # how far from the end it may reach, where there, from which end, to what
    keep: float | None
    tail: bytes

    def of(self, whole: bytes) -> bytes:
        data = bytearray(whole)
        for reach, place, backwards, value in self.edits:
            i = int(place * min(reach, len(data)))
            data[-1 - i if backwards else i] = value
        if self.keep is not None:
            data = data[: int(self.keep * len(data))]
        return bytes(data) + self.tail


PLACE = st.floats(0, 1, exclude_max=True)
DAMAGES = st.builds(
    Damage,
    # Headers are near the start or the end; what lies between is mostly pixels and weights.
    edits=st.lists(
        st.tuples(st.sampled_from([32, 256, 1 << 30]), PLACE, st.booleans(), st.integers(0, 255)), max_size=6
    ),
    keep=st.none() | st.none() | PLACE,
    tail=st.just(b"") | st.just(b"") | st.binary(max_size=300),
)
WHOLE = st.integers(0, len(PICTURES) - 1)


@pytest.fixture(scope="module")
def folder() -> Path:
    with tempfile.TemporaryDirectory() as made:
        yield Path(made)


def test_whole_files_are_accepted(folder: Path, tiny_files: dict, whole_keras: Path) -> None:
    """A reader that refused everything would pass the rest."""
    for data in PICTURES:
        with Image.open(io.BytesIO(data)) as opened:
            known = opened.format not in ("GIF", "EPS") and opened.mode != "F"
        (folder / "image.png").write_bytes(data)
        if known:
            assert load_image(folder / "image.png").shape == PIXELS.shape
        else:
            with pytest.raises(InputError):
                load_image(folder / "image.png")
    assert find_model_info(tiny_files["int8"]) is not None
    assert isinstance(load_segformer(whole_keras), SegFormer)


@given(whole=WHOLE, damage=DAMAGES, bits=st.sampled_from([None, 8, 12, 16]))
def test_images(whole: int, damage: Damage, bits: int | None, folder: Path) -> None:
    (folder / "image.png").write_bytes(damage.of(PICTURES[whole]))
    with refused_in_a_line("image.png"):
        if is_deep_file(folder / "image.png"):
            assert largest_value_of(folder / "image.png") is not None
        pixels = load_image(folder / "image.png", bits=bits)
        assert pixels.dtype == np.uint8
        assert pixels.shape[2:] == (3,)


@given(whole=WHOLE, damage=DAMAGES, bits=st.sampled_from([None, 12]))
def test_tiffs_by_windows(whole: int, damage: Damage, bits: int | None, folder: Path) -> None:
    (folder / "image.tif").write_bytes(damage.of(PICTURES[whole]))
    with refused_in_a_line("image.tif"), open_tiff(folder / "image.tif", bits=bits) as read:
        height, width = (min(side, 50) for side in read.size)  # a head can claim any
        pixels = read(slice(0, height), slice(0, width))
        assert (pixels.dtype, pixels.shape) == (np.uint8, (height, width, 3))
        assert read.gaps(slice(0, height), slice(0, width)).shape == (height, width)
        read.georeference()


def clip(kind: str, codec: str) -> bytes:
    stream = io.BytesIO()
    with av.open(stream, "w", format=kind) as file:
        video = file.add_stream(codec, rate=10)
        video.height, video.width, video.pix_fmt = 34, 50, "yuv420p"
        for i in range(5):
            frame = av.VideoFrame.from_ndarray(np.roll(np.resize(PIXELS, (34, 50, 3)), i, 1), format="rgb24")
            file.mux(video.encode(frame))
        file.mux(video.encode(None))
    return stream.getvalue()


CLIPS = [
    clip(kind, codec)
    for kind, codec in {
        "mp4": "libx264",
        "matroska": "ffv1",
        "webm": "libvpx-vp9",
        "mpegts": "libx264",
        "avi": "mpeg4",
    }.items()
]


@given(whole=st.integers(0, len(CLIPS) - 1), damage=DAMAGES)
def test_videos(whole: int, damage: Damage, folder: Path) -> None:
    (folder / "clip.mp4").write_bytes(damage.of(CLIPS[whole]))
    with refused_in_a_line("clip.mp4"):
        source = open_source(folder / "clip.mp4")
        seen = list(source.frames())
        assert len(seen) <= 5 or source.losses or damage.tail
        assert {frame.pixels.shape for frame in seen} <= {seen[0].pixels.shape if seen else ()}
        assert all(a.ticks < b.ticks for a, b in pairwise(seen))


@given(whole=WHOLE, damage=DAMAGES)
def test_masks(whole: int, damage: Damage, folder: Path) -> None:
    (folder / "mask.png").write_bytes(damage.of(PICTURES[whole]))
    with refused_in_a_line("mask.png"):
        mask = read_mask(folder / "mask.png")
        assert mask.values.dtype == np.uint8
        assert mask.values.ndim == 2 or mask.values.shape[2:] == (3,)
        assert mask.hidden is None or mask.hidden.shape == mask.values.shape[:2]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)
COLORS = st.lists(st.integers(-1, 300) | JSON, min_size=2, max_size=4) | JSON
CLASSES = st.fixed_dictionaries(
    {},
    optional={
        "id": st.integers(-2, 300) | st.lists(st.integers(-2, 300), max_size=3) | JSON,
        "name": JSON,
        "color": COLORS,
    },
)
MANIFESTS = st.fixed_dictionaries(
    {},
    optional={
        "name": JSON,
        "classes": st.lists(CLASSES | JSON, max_size=3) | JSON,
        "ignore": JSON | COLORS,
        "bits": st.integers(7, 17) | JSON,
        "exif": st.sampled_from(["apply", "ignore"]) | JSON,
        "validation": st.fixed_dictionaries({}, optional={"share": st.floats(0, 1) | JSON, "seed": JSON}) | JSON,
        "path": JSON,
    },
)


@given(
    data=st.binary(max_size=200)
    | st.text(":-?[]{}&*!|>'\"%@`#\n a1,", max_size=60).map(str.encode)
    | (JSON | MANIFESTS).map(lambda value: json.dumps(value).encode()),
    name=st.sampled_from(["dataset.json", "dataset.yaml"]),
)
def test_manifests(data: bytes, name: str, folder: Path) -> None:
    (folder / name).write_bytes(data)
    with refused_in_a_line(name):
        manifest = Manifest.read(folder / name)
        assert len(manifest.class_of_value) == 256
        assert len(manifest.labels.names) > 1
        assert manifest.class_of_value.max() <= IGNORE_ID


@given(dtype=st.sampled_from([np.uint8, np.uint16, np.int32, bool, np.float32]), shape=st.tuples(SIDES, SIDES),
       top=st.integers(0, 300), suffix=st.sampled_from(["png", "tif"]))  # fmt: skip
def test_mask_dtypes(
    dtype: type, shape: tuple[int, int], top: int, suffix: str, folder: Path, toy_folder: Path
) -> None:
    for kind in ("images", "masks"):
        (folder / "data" / "train" / kind).mkdir(parents=True, exist_ok=True)
    (folder / "data" / "dataset.json").write_bytes((toy_folder / "dataset.json").read_bytes())
    values = np.random.default_rng(0).integers(0, top + 1, shape).astype(dtype)
    Image.fromarray(np.zeros(shape, np.uint8)).save(folder / "data" / "train" / "images" / "0.png")
    with (folder / "data" / "train" / "masks" / "0.png").open("wb") as file:
        try:
            Image.fromarray(values).save(file, {"png": "PNG", "tif": "TIFF"}[suffix])
        except OSError:  # Pillow writes no such PNG
            return
    source = FolderSource(folder / "data", "train")
    with refused_in_a_line("0.png"):
        image, mask = source[0]
        assert image.shape[:2] == mask.shape == shape
        assert set(np.unique(mask)) <= {*range(6), IGNORE_ID}


@given(shape=st.tuples(SIDES, SIDES), seed=st.integers(0, 2**31 - 1), low=st.floats(0.01, 2), high=st.floats(1, 3))
def test_augmentation_of_any_size(shape: tuple[int, int], seed: int, low: float, high: float) -> None:
    image, mask = np.zeros((*shape, 3), np.uint8), np.zeros(shape, np.uint8)
    scale = min(low, high), max(low, high)
    image, mask = augment(image, mask, (seed, 1), crop=(40, 50), scale=scale)
    assert (image.shape, mask.shape) == ((40, 50, 3), (40, 50))
    assert np.isfinite(image.numpy()).all()


@given(grid=st.tuples(st.integers(1, 50), st.integers(1, 50), st.integers(1, 5)), size=st.tuples(SIDES, SIDES))
def test_masks_of_any_size(grid: tuple[int, int, int], size: tuple[int, int]) -> None:
    mask = logits_to_mask(noise(*grid), size)
    assert mask.shape == size
    assert mask.max() < grid[2]


@SOME
@given(size=st.tuples(SIDES, SIDES))
def test_model_at_any_size(size: tuple[int, int], tiny: SegFormer) -> None:
    pixels = fit_image(PIXELS, size)[None]
    if min(size) < MIN_IMAGE_SIDE:
        with pytest.raises(InputError, match=f"Received: {size[0]}x{size[1]}"):
            tiny.logits(pixels)
        return
    logits = tiny.logits(pixels)
    assert logits.shape == (1, -(-size[0] // 4), -(-size[1] // 4), 6)
    assert np.isfinite(logits).all()


@given(damage=DAMAGES)
def test_damaged_exports(damage: Damage, folder: Path, tiny_files: dict) -> None:
    (folder / "model.tflite").write_bytes(damage.of(tiny_files["int8"].read_bytes()))
    with refused_in_a_line("model.tflite"):
        info = find_model_info(folder / "model.tflite")
        assert info is None or info.recipe == "int8"


@SOME
@given(damage=DAMAGES)
def test_damaged_models_from_elsewhere(damage: Damage, folder: Path, tiny_files: dict) -> None:
    with zipfile.ZipFile(tiny_files["int8"]) as archive:
        end = json.loads(archive.read("segformer.json"))["model"]["bytes"]
    whole = tiny_files["int8"].read_bytes()[:end]
    (folder / "bare.tflite").write_bytes(whole[:8] + damage.of(whole[8:]))
    with refused_in_a_line("bare.tflite"):
        model = TFLiteModel(folder / "bare.tflite", runtime="litert", threads=1)
        assert model.logits(np.zeros((*model.size, 3), np.uint8)).shape == model.grid


@pytest.fixture(scope="module")
def whole_keras(tiny: SegFormer, folder: Path) -> Path:
    tiny.save(folder / "whole.keras")
    return folder / "whole.keras"


def rewrite(whole: Path, member: str, change: Callable[[bytes], bytes]) -> Path:
    """A copy beside `whole` with one member changed and all checksums right."""
    path = whole.with_name("model.keras")
    with zipfile.ZipFile(whole) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            new.writestr(name, change(content) if name == member else content)
    return path


@pytest.fixture(scope="module")
def asked_each_time() -> Iterator[None]:
    """Keras asks a weights file for each group, as it does for users; see `tests.cheaper`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(saving_lib, "h5py", h5py)
        yield


@SOME
@pytest.mark.usefixtures("asked_each_time")
@given(damage=DAMAGES, victim=st.sampled_from(["", "config.json", "metadata.json", "model.weights.h5"]))
def test_damaged_keras_files(damage: Damage, victim: str, whole_keras: Path) -> None:
    if victim:
        path = rewrite(whole_keras, victim, damage.of)
    else:  # anywhere: the checksums find it
        path = whole_keras.with_name("model.keras")
        path.write_bytes(damage.of(whole_keras.read_bytes()))
    with refused_in_a_line("model.keras"):
        assert isinstance(load_segformer(path), SegFormer)


@pytest.fixture(scope="module")
def checkpoints(folder: Path) -> dict[str, bytes]:
    """A checkpoint in every kind of file, by a name with its suffix."""
    torch = pytest.importorskip("torch")
    from tests.checkpoints.test_forms import write_tf_model

    golden = Path(__file__).parent / "checkpoints" / "golden"
    whole = {f"{name}.safetensors": (golden / f"{name}.safetensors").read_bytes() for name in ("nvlabs", "mmseg")}
    tensors = {key: torch.from_numpy(value) for key, value in load_file(golden / "nvlabs.safetensors").items()}
    for name, zipped in (("zip.pth", True), ("old.pth", False)):
        torch.save({"state_dict": tensors, "lr": 1e-3}, folder / name, _use_new_zipfile_serialization=zipped)
        whole[name] = (folder / name).read_bytes()
    write_tf_model(load_file(golden / "transformers.safetensors"), folder / "tf.h5")
    return {**whole, "tf.h5": (folder / "tf.h5").read_bytes()}


@given(
    damage=DAMAGES,
    name=st.sampled_from(["nvlabs.safetensors", "mmseg.safetensors", "zip.pth", "old.pth", "tf.h5"]),
    member=st.sampled_from([None, "zip/data.pkl"]),
)
def test_damaged_checkpoints(
    damage: Damage, name: str, member: str | None, folder: Path, checkpoints: dict[str, bytes]
) -> None:
    path = folder / f"damaged{Path(name).suffix}"
    if member and name == "zip.pth":  # with checksums that are right
        (folder / "whole").write_bytes(checkpoints[name])
        rewrite(folder / "whole", member, damage.of).rename(path)
    else:
        path.write_bytes(damage.of(checkpoints[name]))
    try:
        checkpoint = read_checkpoint(path)
    except InputError as error:  # of several lines where keys do not fit
        if path.name not in str(error):
            pytest.fail(str(error))
        return
    assert checkpoint.has_decoder


SIZES = st.integers(-1, 40) | st.integers(-(2**70), 2**70) | JSON


@SOME
@given(
    field=st.sampled_from([field.name for field in fields(SegFormerConfig)]),
    value=SIZES | st.tuples(SIZES, SIZES, SIZES, SIZES),
)
def test_keras_files_of_any_configuration(field: str, value: object, whole_keras: Path) -> None:
    def change(content: bytes) -> bytes:
        config = json.loads(content)
        config["config"]["config"][field] = value
        return json.dumps(config).encode()

    path = rewrite(whole_keras, "config.json", change)
    with refused_in_a_line("model.keras"):
        assert isinstance(load_segformer(path), SegFormer)


NUMBERS = st.none() | st.floats() | st.integers() | st.integers(10**300, 10**400) | JSON
PREPROCESSORS = st.fixed_dictionaries(
    {},
    optional={
        **{f"do_{name}": st.booleans() | JSON for name in ("resize", "rescale", "normalize", "pad", "center_crop")},
        **{name: NUMBERS | st.tuples(NUMBERS, NUMBERS, NUMBERS) for name in ("image_mean", "image_std")},
        **dict.fromkeys(("rescale_factor", "resample"), NUMBERS),
        "size": st.dictionaries(st.text(max_size=5), JSON) | JSON,
    },
)


@given(data=st.binary(max_size=200) | (JSON | PREPROCESSORS).map(lambda value: json.dumps(value).encode()))
def test_preprocessor_configurations(data: bytes, folder: Path) -> None:
    (folder / PREPROCESSOR_FILE).write_bytes(data)
    with refused_in_a_line(PREPROCESSOR_FILE):
        found = read_preprocessor(folder)
        config = variant_config("tiny", num_classes=1, image_mean=found.mean, image_std=found.std)
        assert np.isfinite(config.normalize(PIXELS)).all()
        assert all(len(note.splitlines()) == 1 for note in found.notes)


@given(data=st.binary(max_size=100) | st.text(max_size=100).map(str.encode))
def test_label_files(data: bytes, folder: Path) -> None:
    (folder / "names.txt").write_bytes(data)
    with refused_in_a_line("names.txt"):
        labels = Labels.read(folder / "names.txt")
        assert len(labels.names) == len(labels.colors) >= 1


@contextmanager
def refused_in_a_line(name: str) -> Iterator[None]:
    """Lets an `InputError` pass that is one line and names the file; anything else fails."""
    try:
        yield
    except InputError as error:
        message = str(error)
        if name not in message or len(message.splitlines()) != 1:
            pytest.fail(f"expected one line that names {name}. Received: {message!r}")
