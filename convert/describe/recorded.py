"""What an export wrote into its file, in words."""

from __future__ import annotations

from segformer_tf.edge.metadata import ModelInfo


def recorded(model_info: ModelInfo | None) -> dict[str, str]:
    """Classes, versions, terms, by name; None is a file that `segformer export` did not write."""
    if model_info is None:
        return {"classes": "unnamed: no metadata of `segformer export`", "verified": "not by `segformer export`"}
    created = {
        key.replace("_", " "): ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        for key, value in model_info.created.items()
    }
    return {
        **({"bits": f"{model_info.bits} of files of more than 8"} if model_info.bits else {}),
        "classes": ", ".join(model_info.labels.names),
        **created,
        **({"license": model_info.license} if model_info.license else {}),
    }
