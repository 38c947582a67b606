import pytest

from tonewood.audio_io.libsndfile import WRITABLE_SUBTYPES, WRITABLE_SUFFIXES, AudioFormat, why_unsupported
from tonewood.errors import CallError


@pytest.mark.parametrize(
    ("container", "subtype", "name", "expected"),
    [
        ("WAV", "PCM_24", "a.flac", ("FLAC", "PCM_24")),
        ("WAV", "PCM_16", "a.FLAC", ("FLAC", "PCM_16")),
        ("WAV", "FLOAT", "a.flac", ("FLAC", "PCM_24")),
        ("WAV", "PCM_32", "a.flac", ("FLAC", "PCM_24")),
        ("WAV", "PCM_U8", "a.flac", ("FLAC", "PCM_S8")),
        ("FLAC", "PCM_S8", "a.wav", ("WAV", "PCM_U8")),
        ("WAV", "DOUBLE", "a.aif", ("AIFF", "DOUBLE")),
        ("WAVEX", "PCM_24", "a.wav", ("WAVEX", "PCM_24")),
        ("RF64", "PCM_24", "a.wav", ("RF64", "PCM_24")),
        ("MP3", "MPEG_LAYER_III", "a.wav", ("WAV", "PCM_16")),
        ("OGG", "VORBIS", "a.flac", ("FLAC", "PCM_16")),
        ("OGG", "OPUS", "a.ogg", ("OGG", "OPUS")),
        ("OGG", "VORBIS", "a.opus", ("OGG", "OPUS")),
        ("FLAC", "PCM_24", "a.ogg", ("OGG", "VORBIS")),
        ("FLAC", "PCM_24", "a.mp3", ("MP3", "MPEG_LAYER_III")),
        ("MP3", "MPEG_LAYER_II", "a.mp3", ("MP3", "MPEG_LAYER_III")),
        ("CAF", "ALAC_24", "a.caf", ("CAF", "PCM_24")),
        ("CAF", "ALAC_20", "a.caf", ("CAF", "PCM_24")),
        ("WAV", "IMA_ADPCM", "a.wav", ("WAV", "PCM_16")),
        ("WAV", "ULAW", "a.wav", ("WAV", "ULAW")),
        ("AIFF", "PCM_S8", "a.aiff", ("AIFF", "PCM_16")),
        ("AIFF", "ULAW", "a.aiff", ("AIFF", "PCM_16")),
    ],
)
def test_suffix_chooses_container_and_keeps_depth(
    container: str, subtype: str, name: str, expected: tuple[str, str]
) -> None:
    chosen = AudioFormat.for_path(name, AudioFormat(container, subtype))
    assert (chosen.container, chosen.subtype) == expected


def test_byte_order_is_kept_only_with_the_format() -> None:
    little = AudioFormat("AIFF", "PCM_16", "LITTLE")
    assert AudioFormat.for_path("a.aiff", little) == little
    assert AudioFormat.for_path("a.flac", little).endian == "FILE"
    assert AudioFormat.for_path("a.au", little).endian == "FILE"


def test_unknown_suffix_is_refused() -> None:
    with pytest.raises(CallError, match=r"take\.doc ends in '\.doc'.*use one of .*\.wav"):
        AudioFormat.for_path("take.doc", AudioFormat("WAV", "PCM_16"))
    with pytest.raises(CallError, match="ends in ''"):
        AudioFormat.for_path("take", AudioFormat("WAV", "PCM_16"))


@pytest.mark.parametrize(
    ("subtype", "bits"),
    [
        ("PCM_U8", 8),
        ("PCM_S8", 8),
        ("PCM_24", 24),
        ("ALAC_20", 20),
        ("FLOAT", None),
        ("ULAW", None),
    ],
)
def test_integer_bits(subtype: str, bits: int | None) -> None:
    assert AudioFormat("WAV", subtype).integer_bits == bits


def test_every_writable_format_has_a_suffix_that_leads_back_to_it() -> None:
    for container, subtypes in WRITABLE_SUBTYPES.items():
        for subtype in subtypes:
            form = AudioFormat(container, subtype)
            assert form.suffix in WRITABLE_SUFFIXES
            assert AudioFormat.for_path("x" + form.suffix, form) == form


def test_opus_has_its_own_suffix() -> None:
    assert AudioFormat("OGG", "OPUS").suffix == ".opus"
    assert AudioFormat("OGG", "VORBIS").suffix == ".ogg"


@pytest.mark.parametrize(
    ("container", "subtype", "shape", "why"),
    [
        ("MP3", "MPEG_LAYER_III", (1000, 1, 96_000), "has 96000 Hz; mp3 supports only 8000, .*48000"),
        ("MP3", "MPEG_LAYER_III", (1000, 3, 48_000), "has 3 channels; mp3 holds 2"),
        ("OGG", "OPUS", (1000, 1, 44_100), "has 44100 Hz; opus supports only"),
        ("OGG", "VORBIS", (1000, 1, 384_000), "has 384000 Hz; vorbis goes to 192000"),
        ("FLAC", "PCM_16", (1000, 9, 48_000), "has 9 channels; flac holds 8"),
        ("FLAC", "PCM_16", (1000, 1, 768_000), "flac goes to 655350"),
        ("WAV", "PCM_16", (2**31, 1, 48_000), "takes more than 4 GiB, which wav cannot hold"),
        ("AIFF", "DOUBLE", (2**29, 1, 48_000), "which aiff cannot hold"),
        ("CAF", "ALAC_16", (1000, 1, 48_000), "CAF ALAC_16, which cannot be written"),
    ],
)
def test_unsupported_shapes_are_known_before_writing(
    container: str, subtype: str, shape: tuple[int, int, int], why: str
) -> None:
    actual = why_unsupported(AudioFormat(container, subtype), *shape)
    assert actual is not None
    with pytest.raises(ValueError, match=why):
        raise ValueError(actual)


@pytest.mark.parametrize("container", ["WAV", "WAVEX"])
def test_wav_of_more_than_4_gib_becomes_rf64(container: str) -> None:
    audio_format = AudioFormat(container, "PCM_24", extension="1800")
    assert audio_format.for_size(2**30, 2) == AudioFormat("RF64", "PCM_24", extension="1800")
    assert audio_format.for_size(2**20, 2) is audio_format
    assert AudioFormat("AIFF", "PCM_24").for_size(2**30, 2).container == "AIFF"


def test_large_files_fit_where_sizes_have_64_bits() -> None:
    for container in ("W64", "RF64", "CAF"):
        assert why_unsupported(AudioFormat(container, "PCM_24"), 2**31, 2, 48_000) is None
