"""Mixed precision under MirroredStrategy, from fit to a verified file; on GPUs by `make test-gpu`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from convert.export import export_tflite
from segformer_tf import MeanIoU, SegmentationLoss, build_segformer, load_segformer
from segformer_tf.edge import list_images
from training.data.open import open_source
from training.data.pipeline import train_batches
from training.optim.optimizer import SegFormerAdamW


def fit_and_export(strategy: tf.distribute.Strategy, variant: str, *, data: Path, folder: Path) -> None:
    source = open_source(str(data), "train")
    replicas = strategy.num_replicas_in_sync

    def batches(context: tf.distribute.InputContext) -> tf.data.Dataset:
        return train_batches(source, crop=(64, 96), scale=(0.75, 1.5), batch_size=2 * replicas, seed=0, context=context)

    with strategy.scope():
        model = build_segformer(variant, num_classes=6, dtype="mixed_float16")
        model.compile(optimizer=SegFormerAdamW(1e-3), loss=SegmentationLoss(), metrics=[MeanIoU(6)], jit_compile=False)
    dataset = strategy.distribute_datasets_from_function(batches)
    losses = model.fit(dataset, steps_per_epoch=4, epochs=3, shuffle=False, verbose=0).history["loss"]
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0]
    assert "loss_scale" in model.optimizer.name
    assert {str(v.dtype) for v in model.trainable_variables} == {"float32"}

    model.save(folder / "mixed.keras")
    loaded = load_segformer(folder / "mixed.keras")
    assert loaded.dtype_policy.name == "mixed_float16"
    images = list_images([data / "train" / "images"])
    for recipe in ("fp32", "int8"):
        out = folder / f"{recipe}.tflite"
        exported = export_tflite(loaded, out, recipe=recipe, size=(64, 96), images=images, runtimes=["litert"])
        assert exported.verdicts[0].error < {"fp32": 1e-4, "int8": 0.2}[recipe]


def test_mixed_precision_on_the_cpu(toy_folder: Path, tmp_path: Path) -> None:
    fit_and_export(tf.distribute.OneDeviceStrategy("/cpu:0"), "tiny", data=toy_folder, folder=tmp_path)


@pytest.mark.gpu
def test_mixed_precision_on_all_gpus(toy_folder: Path, tmp_path: Path) -> None:
    assert tf.config.list_physical_devices("GPU"), "this test was asked for, and TensorFlow sees no GPU"
    fit_and_export(tf.distribute.MirroredStrategy(), "b0", data=toy_folder, folder=tmp_path)
