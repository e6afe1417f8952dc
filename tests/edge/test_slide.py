"""Large pictures by windows: every part of the mask is that of the plain form, with the whole picture in memory."""

from __future__ import annotations

import json
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segformer_tf import resample as resample_module
from segformer_tf import slide as slide_module
from segformer_tf.cli import main
from segformer_tf.edge import Segmenter, fit_image, installed_runtimes, logits_to_mask
from segformer_tf.edge.isolated import IsolatedModel
from segformer_tf.edge.sliding import sliding_blocks
from segformer_tf.errors import InputError
from segformer_tf.mask import part_reach, part_to_mask, resized_part, resized_rows
from segformer_tf.resample import Resized
from segformer_tf.slide import SlidingLogits, default_stride, mask_blocks, scaled_size
from tests.helpers import noise, windows
from training.protocols import EvalProtocol, predict_mask

Network = Callable[[np.ndarray], np.ndarray]


def picture(height: int, width: int) -> np.ndarray:
    return fit_image(np.random.default_rng(0).integers(0, 256, (17, 19, 3), np.uint8), (height, width))


def grid(pixels: np.ndarray) -> np.ndarray:
    """Stands for a network: (⌈H/4⌉, ⌈W/4⌉, 5) that depend on the place in the window, as a network's do."""
    h, w = (-(-side // 4) for side in pixels.shape[:2])
    near = fit_image(pixels, (h, w)).astype(np.float32)
    corner = np.add.outer(np.linspace(0, 40, h, dtype=np.float32), np.linspace(0, 30, w, dtype=np.float32))[..., None]
    return np.concatenate([near, 255 - near[..., :1], near[..., 1:2] / 2 + corner], axis=-1)


def plain_logits(network: Network, image: np.ndarray, window: tuple[int, int], stride: int) -> np.ndarray:
    """Whole windows added up in one array."""
    total, count = np.zeros((), np.float32), np.zeros((*image.shape[:2], 1), np.float32)
    for rows, columns in windows(image.shape[:2], window, stride):
        logits = network(image[rows, columns])
        size = image[rows, columns].shape[:2]
        if not total.ndim:
            total = np.zeros((*image.shape[:2], logits.shape[2]), np.float32)
        total[rows, columns] += np.concatenate([block for _, block in resized_rows(logits, size)])
        count[rows, columns] += 1
    return total / count


def whole(blocks: object, size: tuple[int, int]) -> np.ndarray:
    mask, seen = np.zeros(size, np.uint8), np.zeros(size, int)
    for rows, columns, ids in blocks:
        mask[rows, columns] = ids
        seen[rows, columns] += 1
    np.testing.assert_array_equal(seen, 1)
    return mask


def parts(rng: np.random.Generator, size: tuple[int, int]) -> list[tuple[slice, slice]]:
    pairs = [[sorted(rng.choice(side + 1, 2, replace=False)) for side in size] for _ in range(8)]
    some = [tuple(slice(int(a), int(b)) for a, b in pair) for pair in pairs]
    return [*some, (slice(0, 1), slice(0, 1)), (slice(0, size[0]), slice(0, size[1]))]


@pytest.mark.parametrize("factor", [0.013, 0.37, 0.5, 0.999, 1.0, 1.01, 2.3])
@pytest.mark.parametrize("size", [(97, 161), (200, 31), (64, 96), (90, 45), (90, 46), (91, 44), (60, 60)])
def test_a_part_of_the_resize_is_pillows(size: tuple[int, int], factor: float, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    image, to = rng.integers(0, 256, (*size, 3), np.uint8), scaled_size(size, factor)
    expected = fit_image(image, to)
    resized = Resized(lambda *part: image[part], size, to)
    for part in parts(rng, to):
        np.testing.assert_array_equal(resized(*part), expected[part])
    monkeypatch.setattr(resample_module, "_READ_BYTES", 5000)
    np.testing.assert_array_equal(resized(slice(0, to[0]), slice(0, to[1])), expected)


@pytest.mark.parametrize(
    ("of", "size"), [((25, 41), (97, 161)), ((64, 96), (31, 200)), ((30, 20), (30, 20)), ((1, 7), (9, 7))]
)
def test_a_part_of_the_mask_is_the_whole_masks(of: tuple[int, int], size: tuple[int, int]) -> None:
    logits, rng = noise(*of, 5), np.random.default_rng(2)
    mask = logits_to_mask(logits, size)
    resized = np.concatenate([block for _, block in resized_rows(logits, size)])
    for part in parts(rng, size):
        np.testing.assert_array_equal(part_to_mask(logits[part_reach(of, size, part)], of, size, part), mask[part])
        np.testing.assert_array_equal(resized_part(logits, size, part), resized[part])


SIZES = [(97, 161), (331, 270), (64, 500), (40, 50), (64, 96), (30, 400)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("stride", [64, 48, 29])
def test_blended_logits_are_the_plain_ones_bit_by_bit(size: tuple[int, int], stride: int) -> None:
    image, rng = picture(*size), np.random.default_rng(3)
    plain = plain_logits(grid, image, (64, 96), stride)
    blended = SlidingLogits(grid, lambda *part: image[part], size=size, window=(64, 96), stride=stride)
    for part in parts(rng, size):
        np.testing.assert_array_equal(blended.part(*part), plain[part])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("of", [None, (111, 203), (512, 700)])
def test_blocks_and_lanes_change_no_pixel(
    size: tuple[int, int], of: tuple[int, int] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, of, calls = picture(*size), of or size, []

    def network(pixels: np.ndarray) -> np.ndarray:
        calls.append(pixels.shape)
        return grid(pixels)

    def blended() -> SlidingLogits:
        return SlidingLogits(network, lambda *part: image[part], size=size, window=(64, 96), stride=48)

    expected = logits_to_mask(plain_logits(grid, image, (64, 96), 48), of)
    assert len(np.unique(expected)) > 1
    np.testing.assert_array_equal(whole(mask_blocks(blended(), of), of), expected)
    assert len(calls) == len(windows(size, (64, 96), 48))  # none twice
    monkeypatch.setattr(slide_module, "BLOCK", 32)
    monkeypatch.setattr(slide_module, "_WINDOWS_BYTES", 1)
    monkeypatch.setattr(slide_module, "_BLEND_BYTES", 5000)
    assert len(blended().lanes(of)) == -(-of[1] // 32)
    np.testing.assert_array_equal(whole(mask_blocks(blended(), of), of), expected)


def test_memory_is_that_of_a_strip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slide_module, "_WINDOWS_BYTES", 1 << 20)
    monkeypatch.setattr(slide_module, "_BLEND_BYTES", 1 << 18)

    def peak(height: int, width: int) -> int:
        def read(rows: slice, columns: slice) -> np.ndarray:
            return np.zeros((rows.stop - rows.start, columns.stop - columns.start, 3), np.uint8)

        tracemalloc.start()
        try:
            logits = SlidingLogits(grid, read, size=(height, width), window=(96, 96), stride=72)
            assert sum(ids.size for _, _, ids in mask_blocks(logits, (height, width))) == height * width
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    small = peak(600, 600)
    assert peak(600, 4800) < 1.5 * small
    assert peak(4800, 600) < 1.2 * small


@pytest.mark.parametrize("runtime", installed_runtimes())
@pytest.mark.parametrize("recipe", ["fp32", "int8"])
def test_a_file_slides_on_each_runtime_as_the_plain_form(tiny_files: dict, recipe: str, runtime: str) -> None:
    image = picture(230, 345)
    with IsolatedModel(tiny_files[recipe], runtime=runtime) as worker:
        for scale, stride in ((1.0, 61), (0.8, 97), (1.3, None)):
            options = {"stride": stride, "scale": scale}
            mask = whole(sliding_blocks(worker, lambda *part: image[part], (230, 345), **options), (230, 345))
            fitted = fit_image(image, scaled_size((230, 345), scale))  # wide: across first
            plain = plain_logits(worker.logits, fitted, (97, 161), stride or 72)
            np.testing.assert_array_equal(mask, logits_to_mask(plain, (230, 345)))


def test_a_picture_of_one_window_is_the_plain_mask_and_a_smaller_one_is_stretched(tiny_files: dict) -> None:
    segmenter = Segmenter(tiny_files["fp32"])
    image = picture(97, 161)
    assert (segmenter(image, slide=True).mask == segmenter(image).mask).mean() > 0.9999
    flat = picture(50, 300)
    mask = segmenter(flat, slide=150 - 53).mask
    stretched = plain_logits(lambda pixels: segmenter.logits(fit_image(pixels, (97, 161))), flat, (97, 161), 97)
    np.testing.assert_array_equal(mask, logits_to_mask(stretched, (50, 300)))


@pytest.mark.parametrize("scale", [1.0, 0.7])
def test_evaluate_slides_as_predict_does(tiny_files: dict, scale: float) -> None:
    segmenter, image = Segmenter(tiny_files["int8"]), picture(211, 330)
    protocol = EvalProtocol(slide=(97, 161, 64), scales=(scale,))
    protocol.check()
    assert protocol.resolved(segmenter.size, fixed="the file") == protocol
    result = segmenter(image, slide=64, scale=scale)
    expected = predict_mask(lambda pixels: segmenter.logits(fit_image(pixels, (97, 161))), image, protocol)
    np.testing.assert_array_equal(result.mask, expected)
    assert set(result.speed) == {"load", "resize", "invoke", "mask"}
    assert all(value > 0 for value in result.speed.values())
    for bad in ((97, 161, 98), (97,), (1, 2, 3, 4), ()):
        with pytest.raises(InputError, match="--slide"):
            EvalProtocol(slide=bad).check()


def test_options_out_of_range_are_one_line(tiny_files: dict, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    segmenter = Segmenter(tiny_files["int8"])
    for options, message in (
        (
            {"slide": 98},
            "from 25 to 97, a quarter to the whole of the shorter side of .* 97x161. Received: 98",
        ),
        ({"slide": 0}, "from 25 to 97.* Received: 0"),
        ({"slide": True, "scale": 0.0}, "--scale must be from 1/64 to 4. Received: 0"),
        ({"slide": True, "scale": float("nan")}, "--scale must be"),
        ({"scale": 2.0}, "scale is for slide=True"),
    ):
        with pytest.raises(InputError, match=message):
            segmenter(picture(97, 161), **options)
    Image.fromarray(picture(60, 70)).save(tmp_path / "a.png")
    for options, message in (
        (["--stride", "30"], "--stride is for pictures that are cut into windows; add --slide"),
        (["--scale", "2"], "--scale is for"),
        (["--slide", "--stride", "98"], "--stride must be from 25 to 97"),
    ):
        with pytest.raises(SystemExit):
            main(
                ["predict", str(tiny_files["int8"]), str(tmp_path / "a.png"), "--out", str(tmp_path / "out"), *options]
            )
        assert message in capsys.readouterr().err
        assert not (tmp_path / "out").exists()


def test_default_stride_is_three_quarters() -> None:
    assert default_stride((1024, 1024)) == 768
    assert default_stride((97, 161)) == 72
    assert default_stride((1, 5)) == 1


def test_squeezed_pictures_are_counted_once(tiny_files: dict, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "in").mkdir()
    for name, size in {"a": (97 * 3, 161), "b": (97 * 3 + 1, 161), "c": (50, 161 * 4)}.items():
        Image.fromarray(picture(*size)).save(tmp_path / "in" / f"{name}.png")
    command = ["predict", str(tiny_files["int8"]), str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--overwrite"]
    main(command)
    assert capsys.readouterr().err.count("2 images of 3 squeezed more than 3x into the model's 97x161 pixels") == 1
    main([*command, "--slide"])
    assert "squeezed" not in capsys.readouterr().err
    sizes = [(r["height"], r["width"]) for r in json.loads((tmp_path / "out/predictions.json").read_text()).values()]
    assert sizes == [(291, 161), (292, 161), (50, 644)]
    with Image.open(tmp_path / "out" / "c_mask.png") as mask:
        expected = Segmenter(tiny_files["int8"])(picture(50, 161 * 4), slide=True).mask
        np.testing.assert_array_equal(np.asarray(mask), expected)


def test_a_missing_extra_is_one_line(
    tiny_files: dict, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.fromarray(picture(60, 70)).save(tmp_path / "a.tif")
    monkeypatch.setitem(sys.modules, "rasterio", None)
    with pytest.raises(SystemExit):
        main(["predict", str(tiny_files["int8"]), str(tmp_path / "a.tif"), "--slide", "--out", str(tmp_path / "out")])
    line = "segformer: rasterio is not installed; in the repository: pip install '.[polygons]' or '.[large]'"
    assert line in capsys.readouterr().err


def test_a_picture_too_large_for_memory_is_told_of_slide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from segformer_tf.edge import load_image

    Image.fromarray(picture(60, 70)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(InputError, match=r"a\.png: .*4200 pixels.* --slide"):
        load_image(tmp_path / "a.png")
