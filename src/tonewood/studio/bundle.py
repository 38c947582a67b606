"""A session as one file, which reopens exactly: the recording, the model, all that was decided."""

import errno
import zipfile
import zlib
from pathlib import Path
from typing import Literal

from tonewood.errors import AudioError, RecipeError
from tonewood.files import recipe as recipes
from tonewood.files.container import bundled
from tonewood.files.formats import SUFFIXES
from tonewood.files.output import atomic_path
from tonewood.settings import Settings
from tonewood.studio.desk import Desk
from tonewood.studio.entries import Session, Sound
from tonewood.studio.intake import decoded
from tonewood.studio.sound import found_path
from tonewood.workflow.edit import Edit

SUFFIX = ".tonewood-session"
_MOST_BYTES = 4 * 2**30
_MODEL, _MOST_IN_MEMORY = "model.tonewood", 2**28
_KEPT = ("bands.npz", "anchor.json")

# What a damaged archive, or what is in it, ends in.
_DAMAGE = (
    zipfile.BadZipFile, zlib.error, EOFError, KeyError, ValueError, NotImplementedError,
    RuntimeError, RecipeError,
)  # fmt: skip


class Entry(Settings):
    """An edit in a session file's history."""

    number: int
    found: int | None
    edit: Edit


class Manifest(Settings):
    """What a session file says of itself."""

    format: Literal["tonewood-session"] = "tonewood-session"
    version: Literal[1] = 1
    title: str
    sound: Sound
    model: str
    digest: str
    at: int
    history: tuple[Entry, ...]


def is_session(path: Path) -> bool:
    """Whether a file is a zip archive, as session files are."""
    return zipfile.is_zipfile(path)


def written(desk: Desk, session: Session, path: Path) -> None:
    """Write a session file, whole or not at all."""
    history = desk.store.history(session.id)
    name = desk.chosen(session)
    model = desk.models.get(name)
    manifest = Manifest(
        title=session.title,
        sound=session.sound,
        model=name,
        digest=model.digest,
        at=desk.store.state(session.id).number,
        history=tuple(Entry(number=n, found=f, edit=e) for n, f, e in history),
    )
    source = desk.models.source(name)
    content = bundled()[source] if source in bundled() else Path(source)
    with (
        atomic_path(path, overwrite=True) as temporary,
        zipfile.ZipFile(temporary, "w", strict_timestamps=False) as archive,
    ):
        for entry, told in (("session.json", manifest.model_dump_json(indent=1)),
                            (_MODEL, content.read_bytes())):  # fmt: skip
            # Without a time: zip knows none before 1980, where a clock that lost its battery is.
            archive.writestr(zipfile.ZipInfo(entry), told, zipfile.ZIP_DEFLATED)
        archive.write(session.upload, session.sound.upload)
        for number in sorted({found for _, found, _ in history if found is not None}):
            found = found_path(session.folder, number)
            archive.write(found, found.name, zipfile.ZIP_DEFLATED)
        for kept in _KEPT:
            if (session.folder / kept).exists():
                archive.write(session.folder / kept, kept, zipfile.ZIP_DEFLATED)


def reopened(desk: Desk, name: str, folder: Path, path: Path) -> Session:
    """Enter a session file as the session `name`, in its folder.

    Only names that a session file has are taken from it, and put where ours go.

    Raises
    ------
    AudioError
        It is no session file, or damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(item.file_size for item in archive.infolist()) > _MOST_BYTES:
                raise AudioError("the session file unpacks to more than 4 GiB: it is refused")
            manifest = Manifest.model_validate_json(_small(archive, "session.json"))
            sound = manifest.sound
            suffix = Path(sound.upload).suffix.lower()
            upload = folder / f"recording{suffix if suffix in SUFFIXES else ''}"
            _copied(archive, sound.upload, upload)
            for number in sorted({e.found for e in manifest.history if e.found is not None}):
                target = found_path(folder, number)
                _copied(archive, target.name, target)
                recipes.load(target).mask.mask()
            for kept in _KEPT:
                if kept in archive.namelist():
                    _copied(archive, kept, folder / kept)
            content = _small(archive, _MODEL)
    except (*_DAMAGE, OSError) as error:
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise  # the disk's own trouble; a place before the beginning is the archive's
        raise AudioError(
            "this is neither a recording nor a session file that can be read: choose another"
        ) from error
    model = desk.models.adopt(content, manifest.model, manifest.digest)
    found = decoded(upload, folder, manifest.title)
    told = (sound.samples, sound.channels, sound.sha256)
    if (found.samples, found.channels, found.sha256) != told:
        raise AudioError("the session file's recording is not the one it was made with")
    path.unlink()
    entered = sound.model_copy(update={"upload": upload.name})
    session = desk.store.add(name, manifest.title, entered, model)
    history = [(entry.number, entry.found, entry.edit) for entry in manifest.history]
    desk.store.restore(name, history, manifest.at)
    return session


def _small(archive: zipfile.ZipFile, name: str) -> bytes:
    """What is read into memory at once; BadZipFile where it claims more than that may be."""
    if archive.getinfo(name).file_size > _MOST_IN_MEMORY:
        raise zipfile.BadZipFile(f"{name} is too large")
    return archive.read(name)


def _copied(archive: zipfile.ZipFile, name: str, target: Path) -> None:
    with archive.open(name) as source, target.open("wb") as sink:
        while piece := source.read(1 << 20):
            sink.write(piece)
