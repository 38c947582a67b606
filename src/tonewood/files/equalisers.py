"""Parametric bands in the words of the programs that apply them.

Equalizer APO, AutoEq's `ParametricEQ.txt`, REW's generic filter settings, CamillaDSP 2 and 3. All
take shelves by Q and have the coefficients of `signal.biquads`.
"""

from collections.abc import Callable

from tonewood.signal.biquads import EqFit, FilterType

_APO_FILTER_TYPES: dict[FilterType, str] = {"low_shelf": "LSC", "peaking": "PK", "high_shelf": "HSC"}
_REW_FILTER_TYPES: dict[FilterType, str] = {"low_shelf": "LS Q", "peaking": "PK", "high_shelf": "HS Q"}
_CAMILLA_FILTER_TYPES: dict[FilterType, str] = {
    "low_shelf": "Lowshelf",
    "peaking": "Peaking",
    "high_shelf": "Highshelf",
}


def format_autoeq(fit: EqFit, title: str) -> str:
    """`ParametricEQ.txt`: a preamp and the filters, and nothing else."""
    del title
    lines = [f"Preamp: {fit.gain_db:.2f} dB"]
    for number, band in enumerate(fit.bands, start=1):
        lines.append(
            f"Filter {number}: ON {_APO_FILTER_TYPES[band.kind]} Fc {band.hz:g} Hz "
            f"Gain {band.gain_db:.2f} dB Q {band.q:.3f}"
        )
    return "\n".join(lines) + "\n"


def format_equalizer_apo(fit: EqFit, title: str) -> str:
    """Equalizer APO: the same, with a comment on what it is."""
    return f"# {title}\n" + format_autoeq(fit, title)


def format_rew(fit: EqFit, title: str) -> str:
    """Room EQ Wizard, equaliser `Generic`, which has no gain of the whole: the notes give it."""
    lines = [
        "Filter Settings file",
        "",
        "Room EQ V5.20",
        "",
        f"Notes:{title}; gain of the whole {fit.gain_db:.2f} dB",
        "",
        "Equaliser: Generic",
        "No measurement",
    ]
    for number, band in enumerate(fit.bands, start=1):
        lines.append(
            f"Filter {number:2}: ON  {_REW_FILTER_TYPES[band.kind]:<9}Fc {band.hz:7.1f} Hz  "
            f"Gain {band.gain_db:6.2f} dB  Q {band.q:6.3f}"
        )
    return "\n".join(lines) + "\n"


def format_camilladsp(fit: EqFit, title: str) -> str:
    """Sections `filters` and `pipeline` of a CamillaDSP configuration, for two channels."""
    names = [f"tonewood_{number:02}" for number in range(1, len(fit.bands) + 1)]
    lines = [
        f"# {title}",
        "filters:",
        "  tonewood_gain:",
        "    type: Gain",
        "    parameters:",
        f"      gain: {fit.gain_db:.2f}",
        "      inverted: false",
        "      mute: false",
    ]
    for name, band in zip(names, fit.bands, strict=True):
        lines += [
            f"  {name}:",
            "    type: Biquad",
            "    parameters:",
            f"      type: {_CAMILLA_FILTER_TYPES[band.kind]}",
            f"      freq: {band.hz:.1f}",
            f"      gain: {band.gain_db:.2f}",
            f"      q: {band.q:.3f}",
        ]
    lines += ["pipeline:", "  - type: Filter", "    channels: [0, 1]", "    names:"]
    lines += [f"      - {name}" for name in ("tonewood_gain", *names)]
    return "\n".join(lines) + "\n"


EQUALIZER_FORMATS: dict[str, Callable[[EqFit, str], str]] = {
    "apo": format_equalizer_apo,
    "autoeq": format_autoeq,
    "rew": format_rew,
    "camilladsp": format_camilladsp,
}
