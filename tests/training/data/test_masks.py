"""What a mask's file means, by kind of file and by manifest."""

from __future__ import annotations

import json
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segformer_tf.errors import InputError
from segformer_tf.labels import IGNORE_ID
from tests.training.folders import COLORS, EVERY, ROWS, palette, write_folder
from training.data.folder.manifest import Manifest
from training.data.open import open_source

ID_255 = [ROWS[0], {**ROWS[1], "id": 255}]


def only_mask(root: Path) -> np.ndarray:
    source = open_source(str(root), "train")
    mask, summary = source[0][1], source.summary(0)
    counts = np.zeros(256, np.int64)  # the check counts without making the mask
    np.add.at(counts, [*summary.classes, IGNORE_ID], [*summary.counts, summary.hidden])
    np.testing.assert_array_equal(counts, np.bincount(mask.ravel(), minlength=256))
    return mask


def test_255_is_a_class_where_one_has_that_id(tmp_path: Path) -> None:
    raw = np.array([[0, 255, 255]], np.uint8)
    np.testing.assert_array_equal(only_mask(write_folder(tmp_path / "a", [raw], rows=ID_255)), [[0, 1, 1]])
    np.testing.assert_array_equal(only_mask(write_folder(tmp_path / "b", [raw])), [[0, 255, 255]])
    with pytest.raises(InputError, match="not both a class and ignored"):
        only_mask(write_folder(tmp_path / "c", [raw], rows=ID_255, ignore=[255]))


def test_several_ids_and_colors_are_one_class(tmp_path: Path) -> None:
    rows = [ROWS[0], {"id": [3, 1], "name": "vehicle", "color": [[1, 2, 3], [4, 5, 6]]}, {**ROWS[2], "id": 2}]
    root = write_folder(tmp_path / "ids", [np.array([[0, 1, 2, 3]], np.uint8)], rows=rows)
    np.testing.assert_array_equal(only_mask(root), [[0, 1, 2, 1]])
    labels = open_source(str(root), "train").labels
    assert (labels.names, labels.colors[1]) == (("c0", "vehicle", "c2"), (1, 2, 3))
    colors = np.array([[[0, 0, 0], [4, 5, 6], [1, 2, 3]]], np.uint8)
    np.testing.assert_array_equal(only_mask(write_folder(tmp_path / "colors", [colors], rows=rows)), [[0, 1, 1]])


@pytest.mark.parametrize("names", [("car", "car"), ("Car", "car "), ("ß", "SS")])
def test_names_are_distinct_in_any_case(names: tuple[str, str], tmp_path: Path) -> None:
    rows = [ROWS[0], *({**row, "name": name} for row, name in zip(ROWS[1:], names, strict=True))]
    root = write_folder(tmp_path / "data", [EVERY], rows=rows)
    with pytest.raises(InputError, match=r'distinct, in any case. Received: .* are a list: {"id": \[1, 2\], "name": '):
        open_source(str(root), "train")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": ROWS[1:2], "ignore": [0]}, r'one class, \'c1\', .*"id": 0, .* instead of ignoring 0$'),
        ({"classes": ROWS[:1]}, r'one class, \'c0\', .*{"id": 1, "name": "background", "color": \[0, 0, 0\]}$'),
        ({"classes": [{**ROWS[0], "id": [0, 1]}, ROWS[1]]}, "ids must be distinct"),
        ({"classes": [{**ROWS[0], "id": []}, ROWS[1]]}, "a class without an id"),
        ({"classes": [{**ROWS[0], "id": 0.5}, ROWS[1]]}, "not a usable manifest .*whole number, not 0.5"),
        ({"classes": [{**ROWS[0], "id": True}, ROWS[1]]}, "not a usable manifest .*whole number, not True"),
        ({"classes": [{**ROWS[0], "color": [[0, 0, 0], [0, 0, 300]]}, ROWS[1]]}, "three integers 0..255"),
        ({"classes": [{**ROWS[0], "color": []}, ROWS[1]]}, r"three numbers, \[red, green, blue\]. Received: \[\]"),
        ({"classes": [{**ROWS[0], "color": "#ff0000"}, ROWS[1]]}, "three numbers, .* Received: '#ff0000'"),
        ({"classes": ["road", "sky"]}, '"classes" must be a list of objects'),
        ({"classes": {"road": 0}}, '"classes" must be a list of objects'),
        ({"exif": "upright"}, '"exif" must be "apply" or "ignore". Received: \'upright\''),
    ],
)
def test_manifests_that_make_no_sense(changes: dict, message: str, tmp_path: Path) -> None:
    root = write_folder(tmp_path / "data", [EVERY])
    (root / "dataset.json").write_text(json.dumps({"classes": ROWS, **changes}))
    with pytest.raises(InputError, match=message):
        open_source(str(root), "train")


def test_a_byte_order_mark_before_a_manifest_is_read_over(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "data", [EVERY])
    (root / "dataset.json").write_bytes(b"\xef\xbb\xbf" + (root / "dataset.json").read_bytes())
    np.testing.assert_array_equal(only_mask(root), EVERY)


@pytest.mark.parametrize("order", [[0, 1, 2], [1, 2, 0], [2, 0, 1]])
@pytest.mark.parametrize("tail", [0, 200])
def test_colors_decide_where_a_palettes_are_the_manifests(order: list[int], tail: int, tmp_path: Path) -> None:
    """Optimizers sort palettes and cut them."""
    colors = [COLORS[k] for k in order] + [[7, 7, 7]] * tail
    root = write_folder(tmp_path / "data", [palette(np.argsort(order).astype(np.uint8)[EVERY], colors)])
    np.testing.assert_array_equal(only_mask(root), EVERY)


def test_colors_decide_where_values_are_no_ids(tmp_path: Path) -> None:
    rows = [{**row, "id": 10 * (i + 1)} for i, row in enumerate(ROWS)]
    root = write_folder(tmp_path / "data", [palette(2 - EVERY, COLORS[2::-1])], rows=rows)
    np.testing.assert_array_equal(only_mask(root), EVERY)


@pytest.mark.parametrize(
    "colors", [[[9, 9, 9]] * 256, [[i, i, i] for i in range(256)], [[255, 0, 0], [0, 0, 0], [9, 9, 9]]]
)
def test_values_decide_where_a_palettes_colors_are_not_the_manifests(colors: list, tmp_path: Path) -> None:
    np.testing.assert_array_equal(only_mask(write_folder(tmp_path / "data", [palette(EVERY, colors)])), EVERY)


def test_a_gray_ramp_is_no_palette(tmp_path: Path) -> None:
    """Its black is not the class whose color is black: programs write such palettes where there are no colors."""
    rows = [{**ROWS[0], "color": [9, 9, 9]}, {**ROWS[1], "color": [0, 0, 0]}]
    zeros = np.zeros((2, 3), np.uint8)
    root = write_folder(tmp_path / "data", [palette(zeros, [[i, i, i] for i in range(256)])], rows=rows)
    np.testing.assert_array_equal(only_mask(root), zeros)


def test_vocs_border_is_ignored_though_its_color_is_not_named(tmp_path: Path) -> None:
    colors = np.zeros((256, 3), int)
    colors[:3], colors[255] = COLORS[2::-1], (224, 224, 192)
    raw = np.array([[0, 1, 2, 255]], np.uint8)
    for name, keys in {"silent": {}, "explicit": {"ignore": [255]}}.items():
        root = write_folder(tmp_path / name, [palette(raw, colors.tolist())], **keys)
        np.testing.assert_array_equal(only_mask(root), [[2, 1, 0, 255]])


def test_padding_of_a_palette_is_no_color(tmp_path: Path) -> None:
    """Its black is not the class that is black."""
    raw = np.array([[0, 1, 2, 255]], np.uint8)
    for name, colors in {"black first": COLORS[:3], "black last": COLORS[2::-1]}.items():
        padded = [*colors, *[[0, 0, 0]] * 253]
        root = write_folder(tmp_path / name, [palette(raw, padded)], ignore=[255])
        np.testing.assert_array_equal(only_mask(root), [[*map(COLORS.index, colors), 255]])
    root = write_folder(tmp_path / "unknown", [palette(np.array([[0, 1, 7]], np.uint8), padded)])
    with pytest.raises(InputError, match="mask value 7 is neither a class nor ignored"):
        only_mask(root)


def test_unknown_values_of_a_palette_are_named_but_not_under_transparent_pixels(tmp_path: Path) -> None:
    picture = palette(np.array([[0, 7, 1]], np.uint8), [[9, 9, 9]] * 8)
    root = write_folder(tmp_path / "data", [picture])
    with pytest.raises(
        InputError, match=r"0\.png: mask value 7 is neither a class nor .* \(row 0, column 1, 1 pixels\)"
    ):
        only_mask(root)
    picture.save(root / "train" / "masks" / "0.png", transparency=7)
    np.testing.assert_array_equal(only_mask(root), [[0, 255, 1]])


def with_alpha(mode: str) -> Image.Image:
    """EVERY, its lower row transparent but for the last pixel, which is half transparent."""
    alpha = Image.fromarray(np.array([[255, 255, 255], [0, 0, 128]], np.uint8))
    if mode == "P":
        picture = palette(np.array([[0, 1, 2], [3, 3, 1]], np.uint8), COLORS)
        picture.info["transparency"] = bytes([255, 128, 255, 0])
        return picture
    bands = [Image.fromarray(EVERY)] if mode == "LA" else Image.fromarray(np.array(COLORS, np.uint8)[EVERY]).split()
    return Image.merge(mode, [*bands, alpha])


@pytest.mark.parametrize(  # a TIFF's palette has no alpha
    ("mode", "suffix"), [("P", ".png"), ("LA", ".png"), ("RGBA", ".png"), ("LA", ".tif"), ("RGBA", ".tif")]
)
def test_transparent_pixels_are_ignored(mode: str, suffix: str, tmp_path: Path) -> None:
    root = write_folder(tmp_path / "data", [with_alpha(mode)], suffix=suffix)
    np.testing.assert_array_equal(only_mask(root), [[0, 1, 2], [IGNORE_ID, IGNORE_ID, 1]])


def test_a_value_that_is_transparent_is_ignored(tmp_path: Path) -> None:
    for name, picture, key in (
        ("gray", Image.fromarray(EVERY), 1),
        ("rgb", Image.fromarray(np.array(COLORS, np.uint8)[EVERY]), tuple(COLORS[1])),
        ("palette", palette(EVERY, COLORS), 1),
    ):
        root = write_folder(tmp_path / name, [picture])
        picture.save(root / "train" / "masks" / "0.png", transparency=key)
        np.testing.assert_array_equal(only_mask(root), np.where(EVERY == 1, IGNORE_ID, EVERY))


def test_alpha_is_no_class_where_255_is_one(tmp_path: Path) -> None:
    raw = Image.fromarray(np.array([[0, 255, 255]], np.uint8))
    picture = Image.merge("LA", [raw, Image.fromarray(np.array([[255, 255, 0]], np.uint8))])
    np.testing.assert_array_equal(only_mask(write_folder(tmp_path / "data", [picture], rows=ID_255)), [[0, 1, 255]])


def written_png(size: tuple[int, int], bits: int, kind: int, rows: bytes, *more: tuple[bytes, bytes]) -> bytes:
    """A PNG by hand, of bits and kinds of color that Pillow does not write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", *size, bits, kind, 0, 0, 0)
    parts = [(b"IHDR", header), *more, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_gray_of_few_bits_is_read_by_value(bits: int, tmp_path: Path) -> None:
    raw = np.arange(12, dtype=np.uint8).reshape(3, 4) % min(2**bits, 3)
    root = write_folder(tmp_path / "data", [raw])
    spread = np.unpackbits(raw[..., None], axis=2)[..., 8 - bits :].reshape(3, -1)
    rows = b"".join(b"\0" + np.packbits(row).tobytes() for row in spread)
    path = root / "train" / "masks" / "0.png"
    path.write_bytes(written_png((4, 3), bits, 0, rows))
    np.testing.assert_array_equal(only_mask(root), raw)
    path.write_bytes(written_png((4, 3), bits, 0, rows, (b"tRNS", b"\0\1")))  # 1 is transparent
    np.testing.assert_array_equal(only_mask(root), np.where(raw == 1, IGNORE_ID, raw))


def test_sixteen_bits_are_refused_with_alpha_too(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "data", [EVERY[:1, :1]])
    path = root / "train" / "masks" / "0.png"
    path.write_bytes(written_png((1, 1), 16, 4, b"\0\0\1\xff\xff"))
    with pytest.raises(InputError, match=r"0\.png: a mask is an 8-bit .* Received: mode LA;16"):
        only_mask(root)
    path.write_bytes(written_png((1, 1), 16, 2, b"\0\1\0\2\0\3\0", (b"tRNS", b"\1\0\2\0\3\0")))
    with pytest.raises(InputError, match=r"0\.png: a mask is an 8-bit .* Received: mode RGB;16"):
        only_mask(root)
    Image.fromarray(np.zeros((1, 1), np.uint16)).save(path)
    with pytest.raises(InputError, match=r"0\.png: a mask is an 8-bit .* Received: mode I"):
        only_mask(root)


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_lossless_tiffs_are_read(compression: str | None, tmp_path: Path) -> None:
    for name, picture in (
        ("gray", Image.fromarray(EVERY)),
        ("rgb", Image.fromarray(np.array(COLORS, np.uint8)[EVERY])),
        ("palette", palette(np.argsort([1, 2, 0]).astype(np.uint8)[EVERY], [COLORS[k] for k in (1, 2, 0)])),
    ):
        root = write_folder(tmp_path / name, [picture], suffix=".tiff")
        picture.save(root / "train" / "masks" / "0.tiff", compression=compression)
        np.testing.assert_array_equal(only_mask(root), EVERY)


def test_masks_that_may_have_lost_their_values_are_refused(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "jpg", [EVERY], suffix=".jpg")
    with pytest.raises(InputError, match=r"masks: masks must be PNG or lossless TIFF: 0\.jpg \(1 of them\)$"):
        only_mask(root)
    root = write_folder(tmp_path / "data", [EVERY], suffix=".tif")
    path = root / "train" / "masks" / "0.tif"
    Image.fromarray(EVERY).save(path, compression="jpeg")
    with pytest.raises(InputError, match=r"0\.tif: JPEG changes the values of a mask; save it as PNG"):
        only_mask(root)
    Image.fromarray(EVERY).save(path, "JPEG")
    with pytest.raises(InputError, match=r"0\.tif: JPEG changes the values"):
        only_mask(root)
    Image.fromarray(EVERY).save(path, save_all=True, append_images=[Image.fromarray(EVERY)])
    with pytest.raises(InputError, match=r"0\.tif: a mask is one picture. Received: a TIFF of 2"):
        only_mask(root)
    Image.fromarray(EVERY).save(path, tiffinfo={262: 0})
    with pytest.raises(InputError, match=r"0\.tif: a TIFF in which 0 is white"):
        only_mask(root)
    Image.fromarray(EVERY).save(path, tiffinfo={274: 3})
    with pytest.raises(InputError, match=r"0\.tif: a TIFF with an EXIF orientation"):
        only_mask(root)
    Image.fromarray(EVERY).save(path, tiffinfo={274: 1})
    np.testing.assert_array_equal(only_mask(root), EVERY)


def test_images_of_one_name_do_not_share_a_mask(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "data", [EVERY])
    Image.new("RGB", (8, 8)).save(root / "train" / "images" / "0.bmp")
    with pytest.raises(InputError, match=r"images of one name share a mask: 0\.bmp, 0\.\w+; give"):
        only_mask(root)


def test_a_mask_of_another_name_is_named(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "data", [EVERY])
    (root / "train" / "masks" / "0.png").rename(root / "train" / "masks" / "0_mask.png")
    with pytest.raises(InputError, match=r"image without mask: 0 .*; a mask has its image's name, not 0_mask\.png"):
        only_mask(root)


def test_hidden_files_are_left_alone(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "data", [EVERY])
    for kind, name in (("images", "._0.jpg"), ("masks", "._0.png"), ("images", ".cache.png")):
        (root / "train" / kind / name).write_bytes(b"\0\5\x16\7")
    source = open_source(str(root), "train")
    assert len(source) == 1
    np.testing.assert_array_equal(source[0][1], EVERY)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ignroe": [2]}, "unknown key 'ignroe'; is 'ignore' meant?"),
        ({"Ignore": [2]}, "unknown key 'Ignore'; is 'ignore' meant?"),
        ({"classes": [{"id": 0, "name": "a", "colour": [0, 0, 0]}]}, "unknown key 'colour'; is 'color' meant?"),
        (
            {"classes": [{"id": i, "name": None, "color": [i, 0, 0]} for i in (0, 1)]},
            "a class name is a text. Received: None",
        ),
    ],
)
def test_keys_that_are_misspelt_are_refused(change: dict, message: str, tmp_path: Path) -> None:
    classes = [{"id": i, "name": f"c{i}", "color": [i, 0, 0]} for i in (0, 1)]
    path = tmp_path / "dataset.json"
    path.write_text(json.dumps({"classes": classes, "description": "of another program"}))
    assert Manifest.read(path).labels.names == ("c0", "c1")
    path.write_text(json.dumps({"classes": classes, **change}))
    with pytest.raises(InputError, match=re.escape(message)):
        Manifest.read(path)
