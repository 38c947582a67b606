"""Name the installation where a feature needs PyTorch and it is not installed.

Modules that train, explain or differentiate import torch like any other package. The boundaries (command
line, Python interface, batches, studio) call them in `explain_missing_torch`.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from tonewood.errors import MissingExtraError


@contextmanager
def explain_missing_torch(feature: str, extra: str = "train") -> Iterator[None]:
    """Raise MissingExtraError instead of a failed import of torch; works as a decorator too.

    Parameters
    ----------
    feature : str
        First word of the message, as in ``train``.
    extra : str
        Extra that brings torch and everything else that the feature needs.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if not is_missing_torch(error):
            raise
        raise _missing_torch_error(feature, extra) from None


@contextmanager
def usual_torch_state() -> Iterator[None]:
    """Compute with gradients, in single precision and on the CPU, whatever the caller has set in torch.

    Covers `no_grad`, `inference_mode`, autocast, and the default precision and device.
    """
    import torch

    precision = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        with (
            torch.inference_mode(mode=False),
            torch.enable_grad(),
            torch.autocast("cpu", enabled=False),
            torch.device("cpu"),
        ):
            yield
    finally:
        torch.set_default_dtype(precision)


def is_missing_torch(error: ModuleNotFoundError) -> bool:
    """Return True if the module that was not found is torch, or a part of it."""
    return (error.name or "").partition(".")[0] == "torch"


def class_without_torch(name: str) -> type:
    """Return a class that stands for one that needs torch: calling it raises MissingExtraError.

    With it, `from tonewood import *` and `help(tonewood)` work without torch.
    """

    def __init__(self: object, *_: object, **__: object) -> None:  # noqa: N807 - a method of the class
        raise _missing_torch_error(name)

    short_name = name.rpartition(".")[2]
    return type(short_name, (), {"__doc__": str(_missing_torch_error(name)), "__init__": __init__})


def _missing_torch_error(feature: str, extra: str = "train") -> MissingExtraError:
    return MissingExtraError(f"{feature} needs PyTorch: pip install '.[{extra}]'")
