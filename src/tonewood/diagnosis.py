"""Diagnosis of an installation: versions, optional packages, cores, caches, audio back ends, a self-test."""

import platform
import re
import time
from importlib import metadata, resources
from importlib.util import find_spec
from typing import Any, NamedTuple

from tonewood.data.feature_cache import FeatureCache
from tonewood.utils.parallel import available_cores

_BASE_PACKAGES = ("numpy", "scipy", "soundfile", "soxr", "torch")
# Tools of developers, which no user needs.
_DEVELOPER_EXTRAS = ("dev", "docs", "release")
_SELF_TEST_MODEL = "soundfont-cello"


class SelfTest(NamedTuple):
    """Enhancement of the bundled example; `error` is None if it works."""

    model: str
    audio_seconds: float
    seconds: float
    verdict: str
    error: str | None = None


class Diagnosis(NamedTuple):
    """Properties of an installation."""

    # Of Tonewood, Python, the system and the packages; None for a package that is not installed
    versions: dict[str, str | None]
    extras: dict[str, list[str]]  # packages that are missing, by extra; an extra without any is complete
    cores: int  # cores that this process may use
    # Folder of analysed recordings, and its size
    cache_folder: str
    cache_bytes: int
    # Libraries that read, write and play audio; None if they are not installed
    back_ends: dict[str, str | None]
    self_test: SelfTest

    @property
    def summary(self) -> dict[str, Any]:
        """Diagnosis as JSON."""
        return {**self._asdict(), "self_test": self.self_test._asdict()}


def diagnose() -> Diagnosis:
    """Look at the installation, and enhance the bundled example once."""
    versions: dict[str, str | None] = {
        "tonewood": metadata.version("tonewood"),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        **{name: _package_version(name) for name in _BASE_PACKAGES},
    }
    cache = FeatureCache.for_user().folder
    assert cache is not None
    size = sum(path.stat().st_size for path in cache.glob("*")) if cache.is_dir() else 0
    return Diagnosis(
        versions, _missing_by_extra(), available_cores(), str(cache), size, _back_ends(), _self_test()
    )


def _package_version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _missing_by_extra() -> dict[str, list[str]]:
    missing: dict[str, list[str]] = {}
    for requirement in metadata.requires("tonewood") or []:
        match = re.match(r"([\w.-]+).*;\s*extra == ['\"]([\w-]+)['\"]", requirement)
        if match is None or match[2] in _DEVELOPER_EXTRAS:
            continue
        packages = missing.setdefault(match[2], [])
        if _package_version(match[1]) is None:
            packages.append(match[1])
    return missing


def _back_ends() -> dict[str, str | None]:
    import soundfile

    return {
        "libsndfile": soundfile.__libsndfile_version__,
        "FFmpeg": _ffmpeg_version(),
        "sound card": _sound_card(),
    }


def _ffmpeg_version() -> str | None:
    if find_spec("av") is None:
        return None
    import av

    libavcodec = ".".join(map(str, av.library_versions["libavcodec"]))
    return f"PyAV {av.__version__}, libavcodec {libavcodec}"


def _sound_card() -> str | None:
    try:
        import sounddevice

        devices = sounddevice.query_devices()
    except (ImportError, OSError):  # PortAudio itself may be missing
        return None
    except sounddevice.PortAudioError as error:
        return f"PortAudio fails ({' '.join(str(error).split())})"
    return f"{len(devices)} devices by {sounddevice.get_portaudio_version()[1].split(',')[0]}"


def _self_test() -> SelfTest:
    from tonewood.audio_io.reader import read_recording
    from tonewood.enhancement.pipeline import Enhancement, enhance_array
    from tonewood.model.model import load_model
    from tonewood.settings import EnhanceSettings

    start_time = time.perf_counter()
    try:
        with resources.as_file(resources.files("tonewood.bundled") / "example.flac") as path:
            example = read_recording(path)
        *_, result = enhance_array(
            example.samples, example.rate, load_model(_SELF_TEST_MODEL), EnhanceSettings()
        )
    except Exception as error:  # a broken installation fails in any way, and the report must still appear
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        return SelfTest(_SELF_TEST_MODEL, 0.0, time.perf_counter() - start_time, "failed", reason)
    assert isinstance(result, Enhancement)
    seconds = time.perf_counter() - start_time
    return SelfTest(_SELF_TEST_MODEL, example.duration, seconds, result.certificate.verdict)
