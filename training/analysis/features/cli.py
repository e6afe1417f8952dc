"""Verb `features`. TensorFlow is imported after the options are checked."""

from __future__ import annotations

from pathlib import Path

from segformer_tf.config import check_bits, check_image_shape
from segformer_tf.errors import InputError
from segformer_tf.files import make_folder, refuse_existing
from segformer_tf.image import fit_image, load_image, read_head
from segformer_tf.load_tensorflow import import_tensorflow


def features(
    model: Path,
    image: Path,
    /,
    *,
    pixel: tuple[int, int] | None = None,
    size: tuple[int, int] | None = None,
    bits: int | None = None,
    out: Path = Path("features"),
    overwrite: bool = False,
) -> None:
    """Draw the feature maps of a photo, and what one of its pixels attends to, head by head.

    features.png has the first three principal components of the output of each stage and of the decoder, with the
    share of the variance that each explains. attention.png has the attention of the chosen pixel in the last block of
    each stage: 1, 2, 5 and 8 heads. Its squares are the keys, which come from a reduced image: about 32 pixels a side
    in every stage.

        segformer features runs/mine photo.jpg

        segformer features models/camvid_b0.keras photo.jpg --pixel 310 220 --size 576 768 --out seen

    Parameters
    ----------
    model
        A .keras file or a run folder (its best weights). Of a .tflite nothing inside can be seen.
    image
        The photo.
    pixel
        X and Y of a pixel of the photo, upright as viewers show it, counted from 0 at the upper left. In each stage
        the cell that covers it is taken. Default: the middle.
    size
        Height and width that the photo is stretched to. Default: what a run validated at, else its own.
    bits
        Bits in use in a photo of more than 8. Default: what the model says, else 16.
    out
        Folder for the two pictures.
    overwrite
        Replace these pictures.
    """
    height, width = read_head(image).upright
    x, y = pixel or (width // 2, height // 2)
    if not (0 <= x < width and 0 <= y < height):
        raise InputError(f"--pixel must be inside {image}, x below {width} and y below {height}. Received: {x} {y}")
    check_bits(bits, name="--bits")
    if size:
        check_image_shape((None, *size, 3), "--size")
    pictures = [out / "features.png", out / "attention.png"]
    if not overwrite:
        refuse_existing(pictures)
    import_tensorflow()
    from segformer_tf.keras_file import run_size
    from training.analysis.features.inside import attention_of, feature_maps
    from training.analysis.features.picture import draw_attention, draw_features
    from training.analysis.network import open_network

    network = open_network(model)
    pixels = load_image(image, bits=bits or network.config.image_bits)
    size = size or run_size(model) or (height, width)
    check_image_shape((None, *size, 3), str(image))
    seen = fit_image(pixels, size)
    place = x * size[1] // width, y * size[0] // height
    make_folder(out)
    title = f"{model.name}, {image.name}, {size[0]}x{size[1]} pixels"
    draw_features(seen, feature_maps(network, seen, count=3), pictures[0], title=title)
    where = f"{title}, pixel {x} {y}, the last block of each stage"
    draw_attention(seen, place, attention_of(network, seen, place), pictures[1], title=where)
    for path in pictures:
        print(path)
