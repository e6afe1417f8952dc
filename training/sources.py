"""Where samples come from: a folder with a manifest; a TFDS data set (`training.tfds_source`) has the same face."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.progress import track

from segformer_tf.edge.image import IMAGE_SUFFIXES, Pixels, load_image, open_picture, upright_size
from segformer_tf.errors import InputError
from segformer_tf.labels import IGNORE_ID, Labels
from segformer_tf.terminal import plain_console
from training.mapping import Mask, class_indices, mapping_table, where

Sample = tuple[Pixels, Mask]


class Source(Protocol):
    """One split of a data set, read at random.

    ``source[i]`` is (image, mask): (H, W, 3) uint8 RGB and (H, W) uint8 with class ids
    0..C-1 and `IGNORE_ID`. `license` is its terms in a few words, or "".
    """

    name: str
    license: str
    labels: Labels

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Sample: ...


def open_source(data: str, split: str) -> Source:
    """Open `split` of a folder, or of a TFDS data set given as ``tfds:NAME``.

    Raises:
        InputError: no such data set or split, an empty one, or a manifest that does not say what it must.
    """
    source: Source
    if data.startswith("tfds:"):
        from training.tfds_source import TfdsSource  # TFDS takes seconds to import

        source = TfdsSource(data.removeprefix("tfds:"), split)
    else:
        source = FolderSource(Path(data), split)
    if not len(source):
        raise InputError(f"{data}: split {split} is empty")
    return source


@dataclass(frozen=True)
class Manifest:
    """``dataset.json``: {"name", "license", "classes": [{"id", "name", "color"}], "ignore": [ids or colours]}.

    Attributes:
        name: of the data set.
        license: its terms in a few words, or "".
        labels: names and colours, in order of id.
        table: (256,) int16, class index of every raw mask value, `IGNORE_ID` for ignored ones, -1 for unknown ones.
        palette: class index, or `IGNORE_ID`, of every colour, packed as 0xRRGGBB; None where two classes share one.
    """

    name: str
    license: str
    labels: Labels
    table: NDArray[np.int16]
    palette: dict[int, int] | None

    @classmethod
    def read(cls, path: Path) -> Manifest:
        """Raises InputError where the file is missing, is no JSON or lacks a key."""
        try:
            data = json.loads(path.read_text("utf-8"))
            classes = sorted(data["classes"], key=lambda c: int(c["id"]))
            ids = [int(c["id"]) for c in classes]
            ignore = data.get("ignore", [])
            ignored = {int(i) for i in ignore if not isinstance(i, list)}
            colors = [_packed(i) for i in ignore if isinstance(i, list)]
            for key in ("name", "color"):
                if lacking := [c["id"] for c in classes if key not in c]:
                    raise InputError(f"class {lacking[0]}: missing key {key!r}")
            labels = Labels(tuple(c["name"] for c in classes), tuple(tuple(c["color"]) for c in classes))
            name, license = str(data.get("name", path.parent.name)), str(data.get("license", ""))
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
        except FileNotFoundError:
            if not path.parent.is_dir():
                raise InputError(f"{path.parent}: no such folder") from None
            raise InputError(
                f'{path}: no manifest. Expected {{"classes": [{{"id": 0, "name": "road", "color": [128, 64, 128]}}], '
                '"ignore": [255]}'
            ) from None
        except KeyError as error:
            raise InputError(f"{path}: missing key {error}") from None
        except (AttributeError, OSError, OverflowError, RecursionError, TypeError, ValueError) as error:
            raise InputError(f"{path}: not a usable manifest ({error})") from None
        ignored.add(IGNORE_ID)
        bad = [i for i in (*ids, *ignored) if not 0 <= i <= 255]
        if bad or len(set(ids)) != len(ids) or set(ids) & ignored:
            raise InputError(
                f"{path}: ids must be distinct, 0..254 and not both a class and ignored (255 is always ignored). "
                f"Received: {ids}, ignored {sorted(ignored)}"
            )
        table = mapping_table(ids, ignored)
        palette = {_packed(color): i for i, color in enumerate(labels.colors)}
        distinct = len(palette) == len(ids) and not palette.keys() & set(colors)
        return cls(name, license, labels, table, {**palette, **dict.fromkeys(colors, IGNORE_ID)} if distinct else None)

    def classes(self, raw: NDArray[np.uint8]) -> Mask:
        """Class indices of raw mask values, (H, W) ids or (H, W, 3) colours.

        Raises:
            InputError: a value or colour that the manifest does not know.
        """
        if raw.ndim == 2:
            return class_indices(raw, self.table, known_to="the manifest")
        if self.palette is None:
            raise InputError("a mask in colours, but the manifest gives one colour to two classes")
        codes, inverse = np.unique(
            raw.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32), return_inverse=True
        )
        for code in codes.tolist():
            if code not in self.palette:
                color = code >> 16, code >> 8 & 255, code & 255
                odd = inverse.reshape(raw.shape[:2]) == codes.tolist().index(code)
                raise InputError(f"mask colour {color} is neither a class's nor ignored in the manifest{where(odd)}")
        return np.array([self.palette[code] for code in codes.tolist()], np.uint8)[inverse].reshape(raw.shape[:2])


def _packed(color: Sequence[int]) -> int:
    red, green, blue = (int(v) for v in color)
    return red << 16 | green << 8 | blue


class FolderSource:
    """``root/split/{images,masks}`` with PNG masks and ``root/dataset.json``.

    A mask has its image's stem; its values are the manifest's ids (8-bit or palette PNG) or colours (RGB PNG).
    """

    def __init__(self, root: Path, split: str) -> None:
        manifest = Manifest.read(root / "dataset.json")
        self.name = manifest.name
        self.license = manifest.license
        self.labels = manifest.labels
        self._manifest = manifest
        images, masks = root / split / "images", root / split / "masks"
        if not images.is_dir() or not masks.is_dir():
            splits = sorted(p.parent.name for p in root.glob("*/images"))
            raise InputError(f"{root / split}: expected folders images/ and masks/; splits here: {', '.join(splits)}")
        mask_of = {p.stem: p for p in masks.iterdir() if p.suffix.lower() == ".png"}
        self.images = sorted(p for p in images.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
        if not self.images:
            raise InputError(f"{images}: no image ({', '.join(IMAGE_SUFFIXES)})")
        stems = {p.stem for p in self.images}
        for kind, lone in (
            ("image without mask", stems - mask_of.keys()),
            ("mask without image", mask_of.keys() - stems),
        ):
            if lone:
                raise InputError(f"{root / split}: {kind}: {sorted(lone)[0]} ({len(lone)} of them)")
        self._masks = [mask_of[p.stem] for p in self.images]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:
        image, mask = load_image(self.images[index]), self._mask(index)
        self._check_size(index, mask, (image.shape[0], image.shape[1]))
        return image, mask

    def check(self, index: int) -> None:
        """Read a sample's mask and the head of its image; raises InputError where they do not fit."""
        self._check_size(index, self._mask(index), upright_size(self.images[index]))

    def _mask(self, index: int) -> Mask:
        raw = read_mask(self._masks[index])
        try:
            return self._manifest.classes(raw)
        except InputError as error:
            raise InputError(f"{self._masks[index]}: {error}") from None

    def _check_size(self, index: int, mask: Mask, size: tuple[int, int]) -> None:
        if mask.shape != size:
            raise InputError(f"{self._masks[index]}: mask is {mask.shape}, its image {size} (height, width)")


def check_masks(*sources: Source) -> None:
    """Read every mask of folders once, with progress, before hours are spent.

    Raises:
        InputError: the first one that is unreadable, of another size than its image, or holds an unknown value.
    """
    work = [(source, i) for source in sources if isinstance(source, FolderSource) for i in range(len(source))]
    console = plain_console(stderr=True)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        checked = pool.map(lambda each: each[0].check(each[1]), work)
        quiet = not console.is_terminal
        for _ in track(checked, "checking masks", len(work), console=console, transient=True, disable=quiet):
            pass


def read_mask(path: Path) -> NDArray[np.uint8]:
    """Raw values of a PNG mask: (H, W) of an index or palette PNG, the indices; (H, W, 3) of one in colours.

    Raises:
        InputError: unreadable, or of another kind, such as 16 bits.
    """
    with open_picture(path, formats=("PNG",), kind="mask") as opened:
        return mask_values(opened)


def mask_values(opened: Image.Image) -> NDArray[np.uint8]:
    """What `read_mask` gives, of an open picture."""
    if opened.mode in ("P", "L", "1"):
        return np.asarray(opened, np.uint8)
    if opened.mode in ("RGB", "RGBA"):
        return np.asarray(opened.convert("RGB"))
    raise InputError(f"a mask is an 8-bit index, palette or RGB PNG. Received: mode {opened.mode}")
