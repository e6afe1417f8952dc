"""Learned maps from a student's features to its teacher's, which exist in training alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from segformer_tf import keras_settings  # noqa: F401  before Keras is imported

# isort: split
from keras import layers, ops

from segformer_tf.config import SegFormerConfig
from segformer_tf.model import STAGES, upsample

_WIDTH, _SQUEEZED = 64, 32  # the authors'


class Projections(layers.Layer):
    """From what a student's stages give to guesses of what the teacher's give.

    A guess of a stage's features comes from that stage and all deeper ones: from c4 to c1, each stage's features are
    mapped to a common width and mixed with the upsampled mixture of the deeper ones, by a softmax between the two for
    each channel, which the mean over the image decides (cross selective fusion); a 1x1 map leads to the teacher's
    width. A guess of a stage's patch embeddings is a 1x1 map of the student's (patch embedding alignment).

    Args:
        student: sizes of the student.
        teacher: sizes of the teacher.

    Reference: TransKD, Liu et al. 2022, https://arxiv.org/abs/2202.13393, section 3; without its batch normalization,
    whose statistics would depend on replicas and parts of a batch, and with 1x1 maps alone.
    """

    def __init__(self, student: SegFormerConfig, teacher: SegFormerConfig, **kwargs: Any) -> None:
        super().__init__(name="projections", **kwargs)
        self.student, self.teacher, policy = student, teacher, self.dtype_policy

        def maps(kind: str, widths: Sequence[int]) -> dict[str, layers.Dense]:
            named = zip(STAGES, widths, strict=False)
            return {stage: layers.Dense(width, dtype=policy, name=f"{kind}_{stage}") for stage, width in named}

        self.embedding = maps("embedding", teacher.embed_dims)
        self.inward = maps("inward", [_WIDTH] * 4)
        self.outward = maps("outward", teacher.embed_dims)
        self.squeeze = maps("squeeze", [_SQUEEZED] * 3)  # c4 has no deeper one
        self.choice = maps("choice", [2 * _WIDTH] * 3)

    def build(self, _: Any = None) -> None:
        for i, stage in enumerate(STAGES):
            for layer, width in (
                (self.embedding, self.student.embed_dims[i]),
                (self.inward, self.student.embed_dims[i]),
                (self.outward, _WIDTH),
                (self.squeeze, _WIDTH),
                (self.choice, _SQUEEZED),
            ):
                if stage in layer:
                    layer[stage].build((None, width))

    def call(self, embeddings: dict[str, Any], features: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Guesses of the teacher's embeddings and features, by stage, from the student's."""
        guesses: dict[str, Any] = {}
        mixture = None
        for stage in reversed(STAGES):
            own = self.inward[stage](features[stage])
            mixture = own if mixture is None else self._mix(stage, own, upsample(mixture, ops.shape(own)[1:3]))
            guesses[stage] = self.outward[stage](mixture)
        return {stage: self.embedding[stage](embeddings[stage]) for stage in STAGES}, guesses

    def _mix(self, stage: str, own: Any, deeper: Any) -> Any:
        mean = ops.mean(ops.cast(own + deeper, "float32"), axis=(1, 2))
        scores = ops.cast(self.choice[stage](ops.relu(self.squeeze[stage](mean))), "float32")
        share = ops.cast(ops.softmax(ops.reshape(scores, (-1, 2, _WIDTH)), axis=1), own.dtype)  # (B, 2, width)
        return own * share[:, 0, None, None] + deeper * share[:, 1, None, None]
