"""Verb `import`. TensorFlow is imported when a verb runs, so that --help is quick."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from segformer_tf.checkpoints.hub import find_weights
from segformer_tf.config import IMAGE_MEAN, IMAGE_STD
from segformer_tf.errors import InputError, printable
from segformer_tf.files import atomic, refuse_existing
from segformer_tf.label_sets import find_labels
from segformer_tf.load_tensorflow import import_tensorflow


def import_checkpoint(
    checkpoint: str | None = None,
    /,
    *,
    out: Path,
    from_hub: str | None = None,
    encoder_only: bool = False,
    drop: list[str] | None = None,
    num_classes: int | None = None,
    labels: str | None = None,
    license: str | None = None,
    overwrite: bool = False,
) -> None:
    """Convert a checkpoint of PyTorch or keras-hub, or of transformers' former TensorFlow, to a Keras SegFormer.

    The code base (NVlabs, transformers, mmsegmentation 1.x, segmentation_models.pytorch, keras-hub), sizes and classes
    are read from the names and shapes of its tensors. Nothing is written unless every key is used or known to be dead.
    Tensors alone are read, without torch or keras-hub, and nothing in the file is run.

    For instance:

        segformer import segformer.b0.512x512.ade.160k.pth --labels ade20k --out ade.keras

        segformer import hf://nvidia/segformer-b0-finetuned-ade-512-512 --out ade.keras

        segformer import unet_of_smp.ckpt --encoder-only --drop 'criterion' --num-classes 11 --out start.keras

        segformer import my_lora_adapter/ --out merged.keras

        segformer import keras_hub_preset/ --labels ade20k --out ours.keras

    Then: segformer train --weights start.keras, or segformer export ade.keras. `segformer train` also takes checkpoints
    and names on the hub as they are.

    Parameters
    ----------
    checkpoint
        File (.safetensors, .pth, .pt, .bin, .ckpt, transformers' tf_model.h5, keras-hub's .keras), or a folder:
        transformers' (its config.json gives the labels, its preprocessor_config.json the normalization), a Trainer's
        with checkpoint-N (the best, else the newest), a LoRA adapter's, which is merged into its base, or a preset of
        keras-hub. Or hf://OWNER/NAME, a
        repository on the Hugging Face hub, with @REVISION if you like. A head of one logit becomes two classes,
        background and its own.
    out
        .keras file to write.
    from_hub
        Repository on the hub, OWNER/NAME, in place of a file.
    encoder_only
        Take the encoder alone, whatever else is in the checkpoint: another decoder, a detector, losses. The decoder
        starts fresh.
    drop
        Regular expression of keys to leave out, from the key's start, such as 'criterion'. May be given again.
    num_classes
        Give the model a fresh classifier for this many classes.
    labels
        Class names: ade20k, cityscapes, coco_stuff, voc, camvid, oxford_iiit_pet, or a text file of one name a line. Of
        a head of one logit its own name alone will do.
    license
        Terms of the weights, which are kept with them. Default: those of transformers' config.json if
        `segformer export` wrote it, a warning for the authors' files.
    overwrite
        Replace a file of that name.
    """
    if (checkpoint is None) == (from_hub is None):
        raise InputError("expected either a checkpoint or --from-hub OWNER/NAME")
    if out.suffix != ".keras":
        raise InputError(f"--out must end in .keras. Received: {out}")
    if not overwrite:
        refuse_existing([out])
    names = find_labels(labels) if labels else None
    weights = find_weights(checkpoint or f"hf://{from_hub}")
    import_tensorflow()
    from segformer_tf.checkpoints.importer import read_checkpoint, to_keras

    fresh = encoder_only or num_classes is not None
    source = read_checkpoint(
        weights.path, labels=None if fresh else names, encoder_only=encoder_only, drop=tuple(drop or ())
    )
    if license is not None:
        source = replace(source, config=replace(source.config, license=license))
    model = to_keras(source, encoder_only=encoder_only, num_classes=num_classes, labels=names if fresh else None)
    with atomic(out) as part:
        model.save(part)
    config = model.config
    taken = "encoder" if encoder_only else "all but the classifier" if num_classes else "everything"
    parameters = f"{config.parameter_count:,} parameters, {config.num_classes} classes"
    decoder = f"decoder {config.decoder}, {config.decoder_width} wide"
    for note in (*weights.notes, *source.notes):
        print(printable(note), file=sys.stderr)
    if source.one_logit and not fresh:
        both = " and ".join(config.labels.names) if config.labels else "two"
        print(f"its head has one logit, a sigmoid: two classes, {both}, of the same probabilities")
    if (config.image_mean, config.image_std) != (IMAGE_MEAN, IMAGE_STD):
        print(f"images are normalized by {config.normalization}")
    if config.license:
        print(f"license: {config.license}", file=sys.stderr)
    print(f"{source.dialect.name}: {taken} taken; {parameters}, {decoder} -> {out}")
