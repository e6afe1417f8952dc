"""TIFFs that are too large for memory: read by windows as `load_image` reads them, and written block by block."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from segformer_tf.bit_depth import to_8_bits
from segformer_tf.errors import InputError, first_line
from segformer_tf.image import Pixels
from segformer_tf.slide import BLOCK

_CACHE_MB = 32  # decoded tiles that GDAL holds
_LARGEST_BLOCK = 64 << 20  # bytes of a tile or strip, which is decoded whole
_ORIENTATION, _TILE_OFFSETS, _TILE_LENGTHS = 0x0112, 0x0144, 0x0145


class TiffReader:
    """An open TIFF, any part of it as RGB.

    Args:
        source: rasterio's dataset.
        path: of the file.
        bits: bits in use, 8 to 16, in a file of 16 bits; None takes 16.

    Attributes:
        size: (height, width).
        deep: whether it has 16 bits.
        note: what was assumed of its bands, or "".
        largest: of the values of a deep file that were read so far.

    Raises:
        InputError: bands, values or a layout that cannot be read so.
    """

    def __init__(self, source: Any, path: Path, bits: int | None) -> None:
        self._source, self._path, self._bits = source, path, bits
        self.size = int(source.height), int(source.width)
        self.deep = source.dtypes[0] == "uint16"
        self.largest = 0
        self._bands, self.note = self._find_bands()
        self._check_layout()
        self._table = self._find_table()

    def __call__(self, rows: slice, columns: slice) -> Pixels:
        """(rows, columns, 3) uint8 RGB of slices with both ends.

        Raises:
            InputError: damaged data, or values beyond the bits.
        """
        values = self._read(self._bands, rows, columns)
        if self.deep:
            self.largest = max(self.largest, int(values.max()))
            try:
                values = to_8_bits(values, self._bits or 16)
            except InputError as error:
                raise InputError(f"{self._path}: {error}") from None
        if self._table is not None:
            return self._table[values[0]]
        return np.ascontiguousarray(np.broadcast_to(values, (3, *values.shape[1:])).transpose(1, 2, 0))

    @cached_property
    def has_gaps(self) -> bool:
        """Whether pixels may have no data: by a nodata value, a mask, or an alpha channel."""
        from rasterio.enums import MaskFlags

        return any(
            flags != [MaskFlags.all_valid] for flags in (self._source.mask_flag_enums[b - 1] for b in self._bands)
        )

    def gaps(self, rows: slice, columns: slice) -> NDArray[np.bool_]:
        """(rows, columns), True where a pixel has no data."""
        masks = [self._source.read_masks(band, window=_window(rows, columns)) for band in self._bands]
        gaps: NDArray[np.bool_] = np.max(masks, axis=0) == 0  # a pixel is missing if each of its bands is
        return gaps

    def georeference(self) -> dict[str, Any]:
        """Coordinate system and place of the pixels, as arguments of a new dataset; empty if there is none."""
        source = self._source
        points, system = source.gcps
        place: dict[str, Any] = {}
        if points:
            place = {"gcps": points, "crs": system}
        elif not source.transform.is_identity:
            place = {"transform": source.transform}
        if source.crs and not points:
            place["crs"] = source.crs
        if source.rpcs:
            place["rpcs"] = source.rpcs
        return place

    def _read(self, bands: list[int], rows: slice, columns: slice) -> NDArray[Any]:
        from rasterio.errors import RasterioError

        try:
            values: NDArray[Any] = self._source.read(bands, window=_window(rows, columns))
        except RasterioError as error:
            where = f"rows {rows.start}..{rows.stop - 1}, columns {columns.start}..{columns.stop - 1}"
            raise InputError(
                f"{self._path}: damaged: {where} cannot be read ({first_line(error.__cause__ or error)})"
            ) from None
        return values

    def _find_bands(self) -> tuple[list[int], str]:
        """Numbers of the gray band or of red, green and blue, and what was assumed."""
        from rasterio.enums import ColorInterp

        roles = list(self._source.colorinterp)
        seen = [role for role in roles if role != ColorInterp.alpha]
        if len(seen) == 1 and roles[0] in (ColorInterp.gray, ColorInterp.palette, ColorInterp.undefined):
            return [1], ""
        colors = [ColorInterp.red, ColorInterp.green, ColorInterp.blue]
        if sorted(seen) == sorted(colors):
            return [roles.index(color) + 1 for color in colors], ""
        if seen in ([ColorInterp.gray] + [ColorInterp.undefined] * 2, [ColorInterp.undefined] * 3):
            return [1, 2, 3], f"{self._path}: its three bands have no color; they are read as red, green and blue"
        names = ", ".join(role.name for role in roles[:8]) + (", ..." if roles[8:] else "")
        raise InputError(
            f"{self._path}: expected one gray band or red, green and blue, perhaps with alpha. Received: "
            f"{len(roles)} bands ({names}); choose three by: gdal_translate -b 1 -b 2 -b 3 -colorinterp red,green,blue"
        )

    def _check_layout(self) -> None:
        source, path = self._source, self._path
        kinds = {source.dtypes[band - 1] for band in self._bands}
        bits = source.tags(1, ns="IMAGE_STRUCTURE").get("NBITS", "")
        if not (kinds == {"uint8"} or kinds == {"uint16"}) or bits not in ("", "8", "16"):
            kind = f"{bits} bits" if bits else ", ".join(sorted(kinds))
            raise InputError(f"{path}: expected pixels of 8 or 16 bits, unsigned. Received: {kind}")
        height, width = source.block_shapes[0]
        per_block = len(source.dtypes) if str(source.interleaving).lower().endswith("pixel") else 1
        size = height * width * per_block * np.dtype(source.dtypes[0]).itemsize
        if size > _LARGEST_BLOCK:
            raise InputError(
                f"{path}: is stored in blocks of {height}x{width} pixels, {size >> 20} MB each, which cannot be read "
                "by windows; rewrite it by: gdal_translate -co TILED=YES -co COMPRESS=DEFLATE -co BIGTIFF=IF_SAFER"
            )
        turn = _orientation(path)
        if turn != 1:
            raise InputError(f"{path}: is stored turned or mirrored (orientation {turn}); save it upright")

    def _find_table(self) -> Pixels | None:
        """(256, 3) colors of a picture with a palette, or of one in which 0 is white."""
        from rasterio.enums import ColorInterp

        if self._source.tags(ns="IMAGE_STRUCTURE").get("MINISWHITE") == "YES":
            if self.deep:
                raise InputError(f"{self._path}: 16 bits in which 0 is white; save it with 0 for black")
            return np.repeat(np.arange(255, -1, -1, dtype=np.uint8)[:, None], 3, axis=1)
        if len(self._bands) > 1 or self._source.colorinterp[0] != ColorInterp.palette:
            return None
        if self.deep:
            raise InputError(f"{self._path}: a palette of 16 bits; save it as RGB")
        colors = self._source.colormap(1)
        return np.array([colors.get(i, (0, 0, 0))[:3] for i in range(256)], np.uint8)


@contextmanager
def open_tiff(path: Path, *, bits: int | None) -> Iterator[TiffReader]:
    """Open a TIFF, with or without a georeference; needs rasterio, the extra `large`.

    Args:
        path: of the file.
        bits: bits in use in a file of 16 bits; None takes 16.

    Raises:
        InputError: no such file, not a TIFF, or one that cannot be read by windows.
    """
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning, RasterioError

    if not path.is_file():
        raise InputError(f"{path}: no such image")
    if not any(f[0] == "ignore" and f[2] is NotGeoreferencedWarning for f in warnings.filters):
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # for the process; `catch_warnings` is not for threads
    with rasterio.Env(GDAL_CACHEMAX=_CACHE_MB):
        try:
            source = rasterio.open(path, driver="GTiff")  # no other driver: some open what a file names
        except RasterioError as error:
            raise InputError(f"{path}: not a readable TIFF ({first_line(error)})") from None
        with source:
            yield TiffReader(source, path, bits)


@contextmanager
def new_tiff(
    path: Path, size: tuple[int, int], bands: int, georeference: Mapping[str, Any], *, nodata: int | None = None
) -> Iterator[Any]:
    """A new tiled, compressed TIFF of 8 bits as rasterio's dataset: one band without loss, or RGB as JPEG.

    Args:
        path: of the new file.
        size: (height, width).
        bands: 1 or 3.
        georeference: of `TiffReader.georeference`.
        nodata: value of pixels without data, if there are any.

    Raises:
        OSError: a disk that is full.
    """
    import rasterio

    options: dict[str, Any] = {"tiled": True, "blockxsize": BLOCK, "blockysize": BLOCK, "bigtiff": "if_safer"}
    if bands == 1:
        options |= {"compress": "deflate", "nodata": nodata}
    else:
        options |= {"compress": "jpeg", "photometric": "ycbcr", "interleave": "pixel", "jpeg_quality": 85}
    options |= {"height": size[0], "width": size[1], "count": bands, "dtype": "uint8", **georeference}
    with (
        rasterio.Env(GDAL_PAM_ENABLED="NO"),  # no second file beside it
        rasterio.open(path, "w", driver="GTiff", **options) as new,
    ):
        yield new
    _check_whole(path)


def write_block(new: Any, rows: slice, columns: slice, values: NDArray[np.uint8]) -> None:
    """Write (rows, columns) or (rows, columns, bands) into a dataset of `new_tiff`; raises OSError."""
    from rasterio.errors import RasterioError

    try:
        new.write(values[None] if values.ndim == 2 else values.transpose(2, 0, 1), window=_window(rows, columns))
    except RasterioError as error:
        raise OSError(first_line(error.__cause__ or error)) from None


def _window(rows: slice, columns: slice) -> Any:
    from rasterio.windows import Window

    return Window(columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start)


def _orientation(path: Path) -> int:
    """EXIF orientation of a TIFF, 1 if it has none."""
    try:
        turn = _tags(path).get(_ORIENTATION, 1)
    except Exception:  # a head that GDAL could read all the same
        return 1
    return turn if turn in range(1, 9) else 1


def _check_whole(path: Path) -> None:
    """Raises OSError if a tile of a TIFF lies beyond its end: GDAL says nothing of a disk that is full at the end."""
    try:
        tags = _tags(path)
        tiles = zip(tags[_TILE_OFFSETS], tags[_TILE_LENGTHS], strict=True)
        whole = all(0 < start <= start + length <= path.stat().st_size for start, length in tiles)
    except Exception:  # of Pillow, for a head that ends early
        whole = False
    if not whole:
        raise OSError("not all of it was written; is the disk full?")


def _tags(path: Path) -> ImageFileDirectory_v2:
    """The first directory of a TIFF of any size; Pillow's `Image.open` would refuse a large one."""
    with path.open("rb") as file:
        head = file.read(8)
        if head[2:4] in (b"\x2b\x00", b"\x00\x2b"):  # BigTIFF
            head += file.read(8)
        tags = ImageFileDirectory_v2(head)
        file.seek(tags.next)
        tags.load(file)
        return tags
