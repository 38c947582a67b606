"""One tree of errors: whatever Tonewood raises for its users is a :class:`TonewoodError`.

A message is one line, *value, limit, remedy*:
``take.wav lasts 0.04 s; a score needs 0.25 s: give a longer recording``.
"""

from os import PathLike, fspath


class TonewoodError(Exception):
    """Root of everything raised on purpose; its text is meant for the user."""


class CallError(TonewoodError):
    """The call itself was wrong (exit status 2)."""


class AudioError(TonewoodError):
    """A recording cannot be used."""


class FolderError(TonewoodError):
    """A folder of recordings cannot be used."""


class ModelError(TonewoodError):
    """A model file is missing, damaged or of another kind."""


class RecipeError(TonewoodError):
    """A recipe cannot be read, or does not fit what it is applied to."""


class OutputError(TonewoodError):
    """Nothing could be written there: it exists, is the input, or the place refuses."""


class DeviceError(TonewoodError):
    """A device, for computing or for sound, is not there, refuses, or ran out of memory."""


class ClusterError(TonewoodError):
    """Workers cannot be had, or are gone."""


class MissingExtraError(TonewoodError):
    """An optional dependency is not installed."""


def printable(path: str | PathLike[str]) -> str:
    """Spell a path so that it fits one line of any terminal.

    File names may hold line breaks, escape sequences, and bytes that are no UTF-8; printing
    those would break the line, the terminal, or the program itself.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in fspath(path))
