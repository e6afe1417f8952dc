"""The table of delegates: what each takes, how that is known, and what to give it instead."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from segformer_tf.edge.doctor import rules
from segformer_tf.edge.doctor.rules import Rule

_SCHEMA = "https://github.com/tensorflow/tensorflow/blob/master/tensorflow/lite"
_RUN = "run on x86-64, 2026-11-26: every operation and type in a file of its own"


@dataclass(frozen=True)
class Delegate:
    """A way to run a file, or parts of it, faster than with the runtime's own kernels.

    Attributes:
        name: for `--delegate`.
        title: what it is.
        rule: why it leaves an operation, or "".
        parts: which of the parts it runs: all, the largest, or the first, if that begins at the first operation.
        run: whether the rule was tried here, or read.
        source: of the rule.
        advice: what to do where it leaves operations.
        wrong: why it takes an operation and computes it wrongly, or "".
        refused: why it opens no file with an operation, or "".
        beside_floats: it takes nothing of a file in which it would take no operation on floats.
    """

    name: str
    title: str
    rule: Rule
    parts: Literal["all", "largest", "first"]
    run: bool
    source: str
    advice: tuple[tuple[str, str], ...]
    wrong: Rule = lambda op: ""
    refused: Rule = lambda op: ""
    beside_floats: bool = False


# Advice is by a word in the reasons or kinds that are left, in the order in which it is looked for; "" fits all.
_GPU_ADVICE = (
    ("int16", "export with --recipe fp16, or int8"),
    ("GATHER", "for a class map, export with --runtime litert litert-gpu: it takes the exact form"),
    ("open", "export with a fixed input size"),
    ("", "replace these operations, or run the file on the CPU"),
)
_CPU_ADVICE = (
    ("int16", "export with --recipe int8, which runs in one part"),
    ("int8 weights", "keep depthwise convolutions in float, as --recipe dynamic_int8 does"),
    ("SOFTMAX", "export with --recipe int8, which keeps these steps in float"),
    ("open", "export with a fixed batch and input size"),
    ("", "move them to the end of the graph, or out of the file"),
)
_BYTES_ADVICE = (
    ("float32: it", "export with --recipe int8_io, integers throughout"),
    ("", "expect these steps on the CPU; a file of convolutions alone suits it better"),
)

DELEGATES = (
    Delegate(
        "xnnpack",
        "XNNPACK in LiteRT 2.3, CPU",
        rules.XNNPACK_LITERT,
        "all",
        True,
        f"ai-edge-litert 2.3.0, {_RUN}",
        _CPU_ADVICE,
    ),
    Delegate(
        "xnnpack-2.14",
        "XNNPACK in tflite-runtime 2.14, CPU",
        rules.XNNPACK_TFLITE_RUNTIME,
        "all",
        True,
        f"tflite-runtime 2.14.0, {_RUN}",
        (
            ("int8", "export with --recipe weight_int8 --runtime tflite-runtime, or run it with LiteRT"),
            ("int16", "export with --recipe weight_int8 --runtime tflite-runtime, or run it with LiteRT"),
            (
                "",
                "run it with LiteRT, or, if it is not such a file already, export fp32 or weight_int8 with --runtime "
                "tflite-runtime alone, whose graph avoids most of them",
            ),
        ),
        refused=rules.refused_by_2_14,
        beside_floats=True,
    ),
    Delegate(
        "litert-gpu",
        "LiteRT's GPU accelerator",
        rules.gpu,
        "largest",
        True,
        f"ai-edge-litert 2.3.0, WebGPU on SwiftShader, {_RUN}",
        _GPU_ADVICE,
        rules.gpu_wrong,
    ),
    Delegate(
        "webgpu",
        "LiteRT.js on WebGPU",
        rules.gpu,
        "largest",
        False,
        "the same accelerator as litert-gpu, by its documentation: https://ai.google.dev/edge/litert/web",
        _GPU_ADVICE,
        rules.gpu_wrong,
    ),
    Delegate(
        "wasm",
        "LiteRT.js on WASM",
        rules.XNNPACK_LITERT,
        "all",
        False,
        "the same XNNPACK as LiteRT's, by its documentation: https://ai.google.dev/edge/litert/web",
        _CPU_ADVICE,
    ),
    Delegate(
        "gpu-opencl",
        "TensorFlow Lite's older GPU delegate (OpenCL, OpenGL, Metal)",
        rules.old_gpu,
        "largest",
        False,
        f"{_SCHEMA}/delegates/gpu/common/model_builder.cc, before GELU was added",
        (
            ("GELU", "export with --runtime tflite-runtime, whose graph has no GELU"),
            *_GPU_ADVICE,
        ),
    ),
    Delegate(
        "nnapi",
        "Android NNAPI, deprecated in Android 15",
        rules.nnapi,
        "all",
        False,
        "https://developer.android.com/ndk/reference/group/neural-networks, level 31; a driver may take fewer",
        (
            ("GELU", "export with --runtime tflite-runtime, whose graph has no GELU, or use LiteRT's accelerators"),
            ("", "use LiteRT's GPU accelerator in its place"),
        ),
    ),
    Delegate(
        "core-ml",
        "Core ML, iOS",
        rules.core_ml,
        "all",
        False,
        f"{_SCHEMA}/delegates/coreml/builders/op_factory.h",
        (
            ("integers", "export with --recipe fp16; attention stays outside even so"),
            ("", "use the GPU delegate (Metal): Core ML's list has no matrix product of two activations"),
        ),
    ),
    Delegate(
        "hexagon",
        "Qualcomm Hexagon, deprecated",
        rules.hexagon,
        "all",
        False,
        f"{_SCHEMA}/delegates/hexagon/README.md",
        _BYTES_ADVICE,
    ),
    Delegate(
        "edgetpu",
        "Coral EdgeTPU",
        rules.edge_tpu,
        "first",
        False,
        "https://coral.ai/docs/edgetpu/models-intro/#supported-operations",
        (("", "no recipe suits it: even of int8_io it takes only the first steps, and the CPU runs the rest"),),
    ),
)
