"""Predictions as label files that annotation tools open: COCO, labelme and GeoJSON."""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from segformer_tf import __version__
from segformer_tf.edge.result import Result
from segformer_tf.errors import InputError
from segformer_tf.files import atomic
from segformer_tf.labels import IGNORE_ID, Labels
from segformer_tf.polygons import Polygon, closed, draw_polygons, largest_first, mask_to_polygons

Format = Literal["coco", "labelme", "geojson"]


class LabelFiles(ABC):
    """Label files in the folder `out`, one for each image, or one for all; see `mask_to_polygons` for the rest."""

    def __init__(self, out: Path, labels: Labels, *, tolerance: float, min_area: float) -> None:
        import rasterio.features  # noqa: F401  to fail now if it is missing, and not after the first image

        if tolerance:
            import cv2  # noqa: F401
        self._out, self._labels = out, labels
        self._tolerance, self._min_area = tolerance, min_area

    @abstractmethod
    def paths(self, names: Iterable[str]) -> list[Path]:
        """The files of images whose results have these names."""

    @abstractmethod
    def add(self, name: str, image: Path, result: Result) -> None:
        """Take the result of an image in."""

    def close(self) -> None:  # noqa: B027  most formats have a file for each image
        """Write what belongs to all images together."""

    def _polygons(self, result: Result) -> list[Polygon]:
        return result.polygons(tolerance=self._tolerance, min_area=self._min_area)


class Coco(LabelFiles):
    """``coco.json``: an annotation for each connected region.

    Its segmentation is a polygon, or, as COCO's polygons have no holes, compressed run lengths where there is one.
    Category ids are class ids plus 1: in COCO 0 is the background of some readers. Images are named without folders.
    """

    def __init__(self, out: Path, labels: Labels, *, tolerance: float, min_area: float) -> None:
        import pycocotools.mask

        self._encode = pycocotools.mask.encode
        super().__init__(out, labels, tolerance=tolerance, min_area=min_area)
        self._images: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []

    def paths(self, names: Iterable[str]) -> list[Path]:
        """See `LabelFiles`."""
        return [self._out / "coco.json"]

    def add(self, name: str, image: Path, result: Result) -> None:
        """See `LabelFiles`."""
        height, width = result.mask.shape
        number = len(self._images) + 1
        self._images.append({"id": number, "file_name": image.name, "width": width, "height": height})
        for polygon in self._polygons(result):
            self._annotations.append(
                {
                    "id": len(self._annotations) + 1,
                    "image_id": number,
                    "category_id": polygon.id + 1,
                    "segmentation": self._segmentation(polygon, (height, width)),
                    "area": polygon.area,
                    "bbox": list(polygon.box),
                    "iscrowd": 0,
                }
            )

    def close(self) -> None:
        """Write the file."""
        document = {
            "info": {"description": f"Predictions of segformer_tf {__version__}"},
            "licenses": [],
            "categories": [
                {"id": i + 1, "name": name, "supercategory": ""} for i, name in enumerate(self._labels.names)
            ],
            "images": self._images,
            "annotations": self._annotations,
        }
        _write(self._out / "coco.json", document)

    def _segmentation(self, polygon: Polygon, size: tuple[int, int]) -> Any:
        if not polygon.holes:
            return [polygon.exterior.ravel().tolist()]
        runs = self._encode(np.asfortranarray((draw_polygons([polygon], size) == polygon.id).astype(np.uint8)))
        return {"size": list(size), "counts": runs["counts"].decode("ascii")}


class Labelme(LabelFiles):
    """``NAME.json`` for each image, with its path relative to the folder.

    labelme's shapes have no holes: they come in the order in which they are drawn, larger ones first, so that what
    lies in a hole covers it. Where nothing does, because no class was left there, a shape ``__ignore__`` covers it;
    a region in a hole that was too small for a shape goes to the class around it. What lies in no shape at all belongs
    to no class either, which is no background: there, a shape ``__ignore__`` as large as the image lies below all.
    """

    def paths(self, names: Iterable[str]) -> list[Path]:
        """See `LabelFiles`; raises InputError for an image whose file would be ``predictions.json``."""
        if "predictions" in (names := list(names)):
            raise InputError("an image named predictions: its labels would replace predictions.json; rename the image")
        return [self._out / f"{name}.json" for name in names]

    def add(self, name: str, image: Path, result: Result) -> None:
        """See `LabelFiles`."""
        height, width = result.mask.shape
        polygons = largest_first([*self._polygons(result), *self._open_holes(result.mask)])
        if (draw_polygons(polygons, (height, width), fill_holes=True) == IGNORE_ID).any():
            corners = np.array([(0, 0), (width, 0), (width, height), (0, height)], np.int32)
            polygons = [Polygon(IGNORE_ID, corners), *polygons]
        document: dict[str, Any] = {
            "version": "5.5.0",
            "flags": {},
            "shapes": [self._shape(polygon) for polygon in polygons],
            "imagePath": Path(os.path.relpath(image, self._out)).as_posix(),
            "imageData": None,
            "imageHeight": height,
            "imageWidth": width,
        }
        _write(self._out / f"{name}.json", document)

    def _open_holes(self, mask: NDArray[np.uint8]) -> list[Polygon]:
        """Regions without a class that outlines without holes would cover, with the id `IGNORE_ID`."""
        if (mask != IGNORE_ID).all():
            return []
        drawn = draw_polygons(mask_to_polygons(mask), (mask.shape[0], mask.shape[1]), fill_holes=True)
        covered = np.where(drawn == mask, np.uint8(IGNORE_ID), np.uint8(0))
        holes = mask_to_polygons(covered, tolerance=self._tolerance, min_area=self._min_area)
        return [replace(hole, id=IGNORE_ID) for hole in holes]

    def _shape(self, polygon: Polygon) -> dict[str, Any]:
        return {
            "label": "__ignore__" if polygon.id == IGNORE_ID else self._labels.names[polygon.id],
            "points": polygon.exterior.astype(float).tolist(),
            "group_id": None,
            "description": "",
            "shape_type": "polygon",
            "flags": {},
            "mask": None,
        }


class GeoJson(LabelFiles):
    """``NAME.geojson`` for each image: polygons with holes, whose coordinates are pixels and not degrees.

    Classes are where QuPath looks for them.
    """

    def paths(self, names: Iterable[str]) -> list[Path]:
        """See `LabelFiles`."""
        return [self._out / f"{name}.geojson" for name in names]

    def add(self, name: str, image: Path, result: Result) -> None:
        """See `LabelFiles`."""
        features = [
            {
                "type": "Feature",
                "geometry": {
                    "type": "Polygon",
                    "coordinates": [closed(ring) for ring in (polygon.exterior, *polygon.holes)],
                },
                "properties": {
                    "objectType": "annotation",
                    "class_id": polygon.id,
                    "classification": {
                        "name": self._labels.names[polygon.id],
                        "color": list(self._labels.colors[polygon.id]),
                    },
                },
            }
            for polygon in self._polygons(result)
        ]
        _write(self._out / f"{name}.geojson", {"type": "FeatureCollection", "features": features})


def _write(path: Path, document: dict[str, Any]) -> None:
    with atomic(path) as part:
        part.write_text(json.dumps(document), "utf-8")


KINDS: dict[Format, type[LabelFiles]] = {"coco": Coco, "labelme": Labelme, "geojson": GeoJson}
