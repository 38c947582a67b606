"""Errors for users: all derive from :class:`TonewoodError`.

A message is one line: what is wrong with which value, the limit, and what to do, as in
``take.wav lasts 0.04 s; a score needs 0.25 s: give a longer recording``.
"""

from os import PathLike, fspath


class TonewoodError(Exception):
    """Base class of all errors for users; the text is written for them."""


class CallError(TonewoodError):
    """The call is wrong (exit code 2)."""


class AudioError(TonewoodError):
    """A recording cannot be used."""


class FolderError(TonewoodError):
    """A folder of recordings cannot be used."""


class ModelError(TonewoodError):
    """A model file is missing, damaged or of another kind."""


class RecipeError(TonewoodError):
    """A recipe cannot be read, or does not fit the recording or model."""


class OutputError(TonewoodError):
    """An output cannot be written, exists already, or would replace its input."""


class DeviceError(TonewoodError):
    """A GPU or sound device does not exist, fails, or ran out of memory."""


class ClusterError(TonewoodError):
    """Workers cannot be started or were lost."""


class MissingExtraError(TonewoodError):
    """An optional dependency is not installed."""


def printable(path: str | PathLike[str]) -> str:
    """Return a path with unprintable characters escaped, so that it fits one line of any terminal.

    File names may contain line breaks, escape sequences, and bytes that are not UTF-8.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in fspath(path))


def failure_reason(error: Exception) -> str:
    """Return what the system says of a failure, in lower case, for the middle of a message."""
    if isinstance(error, UnicodeDecodeError):
        return "it is not UTF-8"
    # An OSError with only a text has no `strerror`; errors of other classes have no such attribute.
    return (getattr(error, "strerror", None) or str(error)).lower()
