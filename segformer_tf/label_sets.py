"""Class names of the data sets that SegFormer's released weights were trained on, in the order of their logits."""

from __future__ import annotations

from pathlib import Path

from segformer_tf.errors import InputError
from segformer_tf.labels import Labels

# ADE20K's 150 classes (objectInfo150 of SceneParsing); the first name of each.
_ADE20K = """
wall, building, sky, floor, tree, ceiling, road, bed, windowpane, grass, cabinet, sidewalk, person, earth, door,
table, mountain, plant, curtain, chair, car, water, painting, sofa, shelf, house, sea, mirror, rug, field,
armchair, seat, fence, desk, rock, wardrobe, lamp, bathtub, railing, cushion, base, box, column, signboard,
chest of drawers, counter, sand, sink, skyscraper, fireplace, refrigerator, grandstand, path, stairs, runway,
case, pool table, pillow, screen door, stairway, river, bridge, bookcase, blind, coffee table, toilet, flower,
book, hill, bench, countertop, stove, palm, kitchen island, computer, swivel chair, boat, bar, arcade machine,
hovel, bus, towel, light, truck, tower, chandelier, awning, streetlight, booth, television, airplane, dirt
track, apparel, pole, land, bannister, escalator, ottoman, bottle, buffet, poster, stage, van, ship, fountain,
conveyer belt, canopy, washer, plaything, swimming pool, stool, barrel, basket, waterfall, tent, bag, minibike,
cradle, oven, ball, food, step, tank, trade name, microwave, pot, animal, bicycle, lake, dishwasher, screen,
blanket, sculpture, hood, sconce, vase, traffic light, tray, ashcan, fan, pier, crt screen, plate, monitor,
bulletin board, shower, radiator, glass, clock, flag
"""

# Cityscapes' 19 train ids, with its own colours.
_CITYSCAPES = (
    ("road", (128, 64, 128)),
    ("sidewalk", (244, 35, 232)),
    ("building", (70, 70, 70)),
    ("wall", (102, 102, 156)),
    ("fence", (190, 153, 153)),
    ("pole", (153, 153, 153)),
    ("traffic light", (250, 170, 30)),
    ("traffic sign", (220, 220, 0)),
    ("vegetation", (107, 142, 35)),
    ("terrain", (152, 251, 152)),
    ("sky", (70, 130, 180)),
    ("person", (220, 20, 60)),
    ("rider", (255, 0, 0)),
    ("car", (0, 0, 142)),
    ("truck", (0, 0, 70)),
    ("bus", (0, 60, 100)),
    ("train", (0, 80, 100)),
    ("motorcycle", (0, 0, 230)),
    ("bicycle", (119, 11, 32)),
)

# PASCAL VOC's 21; 0 is background. The default colours are VOC's.
_VOC = """
background, aeroplane, bicycle, bird, boat, bottle, bus, car, cat, chair, cow, diningtable, dog, horse,
motorbike, person, potted plant, sheep, sofa, train, tv/monitor
"""


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.replace("\n", " ").split(",")]


def find_labels(name: str) -> Labels:
    """The labels of "ade20k", "cityscapes" or "voc", or those in a text file of one name a line.

    Raises:
        InputError: neither.
    """
    if name == "ade20k":
        return Labels.named(_names(_ADE20K))
    if name == "cityscapes":
        return Labels(tuple(n for n, _ in _CITYSCAPES), tuple(c for _, c in _CITYSCAPES))
    if name == "voc":
        return Labels.named(_names(_VOC))
    if Path(name).is_file():
        return Labels.read(name)
    raise InputError(f"--labels: expected ade20k, cityscapes, voc, or a file of names. Received: {name}")
