"""Tonewood changes recordings toward a sound that is learnt from two folders of recordings.

The names in `__all__` are the Python interface. Each is imported on first use, so `import tonewood` is fast.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tonewood.api import (
        Stream,
        enhance,
        from_pretrained,
        load,
        push_to_hub,
        save_pretrained,
        score,
        train,
    )
    from tonewood.enhancement.analysis import Score
    from tonewood.enhancement.pipeline import Enhancement
    from tonewood.errors import TonewoodError
    from tonewood.model.losses import FeatureLoss, NeuralLoss
    from tonewood.model.model import Model

    __version__: str

__all__ = [
    "Enhancement",
    "FeatureLoss",
    "Model",
    "NeuralLoss",
    "Score",
    "Stream",
    "TonewoodError",
    "enhance",
    "from_pretrained",
    "load",
    "push_to_hub",
    "save_pretrained",
    "score",
    "train",
]

_EXPORT_MODULES = {
    "Enhancement": "tonewood.enhancement.pipeline",
    "FeatureLoss": "tonewood.model.losses",
    "Model": "tonewood.model.model",
    "NeuralLoss": "tonewood.model.losses",
    "Score": "tonewood.enhancement.analysis",
    "Stream": "tonewood.api",
    "TonewoodError": "tonewood.errors",
    "enhance": "tonewood.api",
    "from_pretrained": "tonewood.api",
    "load": "tonewood.api",
    "push_to_hub": "tonewood.api",
    "save_pretrained": "tonewood.api",
    "score": "tonewood.api",
    "train": "tonewood.api",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401
    if name == "__version__":
        from importlib.metadata import version

        return version("tonewood")
    if name not in _EXPORT_MODULES:
        raise AttributeError(f"module 'tonewood' has no attribute {name!r}")
    try:
        return getattr(import_module(_EXPORT_MODULES[name]), name)
    except ModuleNotFoundError as error:
        from tonewood.errors import class_without_torch, is_missing_torch

        if not is_missing_torch(error):
            raise
        return class_without_torch(f"tonewood.{name}")


def __dir__() -> list[str]:
    return sorted(__all__)
