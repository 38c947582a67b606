"""A session as one file, which reopens exactly: the recording, the model, all that was decided."""

import errno
import zipfile
import zlib
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from tonewood.errors import AudioError, RecipeError
from tonewood.files import recipe as recipes
from tonewood.files.container import bundled
from tonewood.files.formats import SUFFIXES
from tonewood.files.output import atomic_path
from tonewood.files.values import values
from tonewood.settings import Settings
from tonewood.studio.brought import check_anchor, check_bands, check_mask, claimed
from tonewood.studio.desk import Desk
from tonewood.studio.entries import Session, Sound
from tonewood.studio.intake import decoded, titled
from tonewood.studio.sound import found_path
from tonewood.studio.store import UNDO
from tonewood.workflow.edit import Edit

SUFFIX = ".tonewood-session"
_MOST_BYTES = 4 * 2**30
_MODEL, _MOST_IN_MEMORY = "model.tonewood", 2**28
_MOST_VALUES = 2**21  # in the manifest: 500 edits of 200 notes and 50 areas each
BANDS, ANCHOR = "bands.npz", "anchor.json"
_MOST_ANCHOR = 1_000

# What a damaged archive, or what is in it, ends in.
_DAMAGE = (
    zipfile.BadZipFile, zlib.error, EOFError, KeyError, ValueError, NotImplementedError,
    RuntimeError, RecipeError,
)  # fmt: skip


class Entry(Settings):
    """An edit in a session file's history."""

    number: int = Field(ge=0, le=2**53)
    found: int | None = Field(ge=0, le=1_000_000)
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
    history: tuple[Entry, ...] = Field(min_length=1, max_length=UNDO + 1)

    @model_validator(mode="after")
    def _leads_on(self) -> Self:
        first = self.history[0].number
        if [it.number for it in self.history] != list(range(first, first + len(self.history))):
            raise ValueError("the history has gaps")
        if not 0 <= self.at - first < len(self.history):
            raise ValueError("the history does not hold where it stands")
        return self


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
        for kept in (BANDS, ANCHOR):
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
            if claimed(archive) > _MOST_BYTES:
                raise AudioError("the session file unpacks to more than 4 GiB: it is refused")
            manifest = _manifest(archive)
            title = titled(manifest.title)
            upload = _recording(archive, manifest, folder)
            sound = decoded(upload, folder, title)
            told = manifest.sound
            if (sound.samples, sound.channels, sound.rate, sound.sha256) != (
                told.samples, told.channels, told.rate, told.sha256,
            ):  # fmt: skip
                raise AudioError("the session file's recording is not the one it was made with")
            _brought(archive, manifest, sound, folder)
            content = _small(archive, _MODEL)
    except (*_DAMAGE, OSError) as error:
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise  # the disk's own trouble; a place before the beginning is the archive's
        raise AudioError(
            "this is neither a recording nor a session file that can be read: choose another"
        ) from error
    model = desk.models.adopt(content, manifest.model, manifest.digest)
    path.unlink()
    session = desk.store.add(name, title, sound, model)
    history = [(entry.number, entry.found, entry.edit) for entry in manifest.history]
    desk.store.restore(name, history, manifest.at)
    return session


def _manifest(archive: zipfile.ZipFile) -> Manifest:
    text = _small(archive, "session.json")
    if values(text) > _MOST_VALUES:
        raise zipfile.BadZipFile("session.json holds too much")
    return Manifest.model_validate_json(text)


def _recording(archive: zipfile.ZipFile, manifest: Manifest, folder: Path) -> Path:
    """Put the recording where ours go; its path."""
    suffix = Path(manifest.sound.upload).suffix.lower()
    upload = folder / f"recording{suffix if suffix in SUFFIXES else ''}"
    _copied(archive, manifest.sound.upload, upload)
    return upload


def _brought(archive: zipfile.ZipFile, manifest: Manifest, sound: Sound, folder: Path) -> None:
    """Put found masks and what else is known of a recording where ours go, once it is checked."""
    for number in sorted({e.found for e in manifest.history if e.found is not None}):
        target = found_path(folder, number)
        _within(archive, target.name)
        _copied(archive, target.name, target)
        check_mask(recipes.load(target), sound)
    if BANDS in archive.namelist():
        _copied(archive, BANDS, folder / BANDS)
        check_bands(folder / BANDS, sound)
    if ANCHOR in archive.namelist():
        anchor = _small(archive, ANCHOR)
        if len(anchor) > _MOST_ANCHOR:
            raise zipfile.BadZipFile(f"{ANCHOR} is too large")
        (folder / ANCHOR).write_bytes(anchor)
        check_anchor(folder / ANCHOR)


def _within(archive: zipfile.ZipFile, name: str) -> None:
    """BadZipFile where what is read into memory at once claims more than that may be."""
    if archive.getinfo(name).file_size > _MOST_IN_MEMORY:
        raise zipfile.BadZipFile(f"{name} is too large")


def _small(archive: zipfile.ZipFile, name: str) -> bytes:
    _within(archive, name)
    return archive.read(name)


def _copied(archive: zipfile.ZipFile, name: str, target: Path) -> None:
    with archive.open(name) as source, target.open("wb") as sink:
        while piece := source.read(1 << 20):
            sink.write(piece)
