"""What the package of corruptions does to a picture, and what it leaves alone."""

from __future__ import annotations

import builtins
from importlib.metadata import PackageNotFoundError

import numpy as np
import pytest

from segformer_tf.errors import InputError
from segformer_tf.image import fit_image
from training.analysis.robustness import corruptions
from training.analysis.robustness.corruptions import CLEAN, GROUPS, Cell, choose_cells, corrupt, load_package, names


def picture(height: int, width: int) -> np.ndarray:
    """Surfaces and edges, so that blurs have something to blur."""
    return fit_image(np.random.default_rng(0).integers(0, 256, (7, 9, 3), np.uint8), (height, width))


@pytest.mark.parametrize("name", names())
def test_a_picture_of_any_shape_is_corrupted_the_same_way_every_time(name: str) -> None:
    image = picture(33, 70)
    before = image.copy()
    np.random.seed(5)
    expected = np.random.random(3)
    np.random.seed(5)
    severe = corrupt(image, Cell(name, 3), index=4)
    np.testing.assert_array_equal(np.random.random(3), expected)  # whoever else draws from it is not disturbed
    np.testing.assert_array_equal(image, before)
    assert severe.shape == image.shape
    assert severe.dtype == np.uint8
    assert (severe != image).mean() > 0.05
    np.random.seed(6)
    np.testing.assert_array_equal(corrupt(image, Cell(name, 3), index=4), severe)


@pytest.mark.parametrize("name", [*GROUPS["noise"], "glass_blur", "snow", "fog", "spatter", "frost", "motion_blur"])
def test_two_images_are_not_corrupted_alike(name: str) -> None:
    image = picture(64, 48)
    assert (corrupt(image, Cell(name, 2), index=0) != corrupt(image, Cell(name, 2), index=1)).any()


def test_noise_grows_with_severity() -> None:
    image = picture(64, 96).astype(float)
    spread = [
        np.abs(corrupt(image.astype(np.uint8), Cell("gaussian_noise", s), index=0) - image).mean() for s in (1, 3)
    ]
    assert spread[0] < 0.7 * spread[1]


def test_clean_is_the_image_and_a_small_one_is_refused() -> None:
    image = picture(31, 64)
    assert corrupt(image, CLEAN, index=0) is image
    with pytest.raises(InputError, match=r"at least 32x32 pixels. Received: 31x64"):
        corrupt(image, Cell("fog", 1), index=0)


def test_cells_are_those_of_the_paper() -> None:
    cells = choose_cells(None, (1, 2, 3, 4, 5))
    assert cells[0] == CLEAN
    assert len(names()) == len(set(names())) == 16
    assert len(cells) == len(set(cells)) == 1 + 12 * 5 + 4 * 3
    assert max(cell.severity for cell in cells if cell.corruption in GROUPS["noise"]) == 3
    some = choose_cells(["fog", "noise"], (5, 3, 3))
    assert [cell.name for cell in some] == ["clean", *(f"{name}/3" for name in GROUPS["noise"]), "fog/3", "fog/5"]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ((["mist"], (1,)), "--corruptions must be of noise, .* frost. Received: mist"),
        ((None, (0,)), "--severities must be of 1 to 5. Received: 0"),
        ((None, ()), "--severities must be of 1 to 5. Received: none"),
        ((["noise"], (4, 5)), "noise ends at severity 3"),
    ],
)
def test_no_such_cells(arguments: tuple, line: str) -> None:
    with pytest.raises(InputError, match=line):
        choose_cells(*arguments)


def test_a_missing_package_is_one_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_package().startswith("imagecorruptions-imaug 1.1.")
    own = builtins.__import__

    def without_a_desktop(name: str, *arguments: object, **options: object) -> object:
        if name == "imagecorruptions":
            raise ImportError("libGL.so.1: cannot open shared object file")
        return own(name, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(builtins, "__import__", without_a_desktop)
        with pytest.raises(InputError, match=r"cannot be loaded \(libGL.so.1.*\); .* pip install --no-deps"):
            load_package()

    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(corruptions, "version", missing)
    with pytest.raises(InputError, match=r"^imagecorruptions-imaug is not installed; .* --no-deps"):
        load_package()
