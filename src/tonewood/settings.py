"""Every setting of Tonewood: frozen, self-validating, JSON both ways.

A setting travels inside its group and a group travels whole: functions take the group, not its
fields. Lengths are milliseconds or seconds, frequencies Hz, gains dB; samples and bins are derived.
"""

import json
from collections.abc import Sequence
from typing import Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from tonewood.errors import CallError

PriorKind = Literal["auto", "none", "random", "blocks", "static", "neighbours", "network", "predicted"]
EnhanceMethod = Literal["search", "paper", "predicted"]
NormalizedProperty = Literal["level", "bandwidth", "noise"]
MaskComponent = Literal["all", "tilt", "bands", "dynamics-of-bands"]
# Of torch.optim, those that take dense gradients of any shape and need no more than a step size.
OptimizerName = Literal[
    "Adam", "AdamW", "NAdam", "RAdam", "Adamax", "Adagrad", "Adadelta", "Adafactor", "RMSprop",
    "Rprop", "SGD", "ASGD", "LBFGS",
]  # fmt: skip


class Settings(BaseModel):
    """Base of all groups: immutable; a misspelt name or a number without end is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class SpectrumSettings(Settings):
    """Analysis of the paper's section III: 16 kHz, 30 ms periodic Hann, 10 ms hop, 512 points."""

    rate: int = Field(16_000, ge=8_000, le=48_000, description="analysis rate, Hz")
    window_ms: float = Field(30.0, gt=1, le=200)
    hop_ms: float = Field(10.0, gt=1, le=100)
    fft: int = Field(512, ge=64, le=8_192)
    floor_db: float = Field(-140.0, le=-60, description="magnitudes below count as this, dBFS")

    @model_validator(mode="after")
    def _check_window(self) -> Self:
        if self.window > self.fft:
            raise ValueError(f"a window of {self.window} samples does not fit an FFT of {self.fft}")
        if self.hop * 2 > self.window:
            raise ValueError(f"a hop of {self.hop_ms} ms leaves gaps between {self.window_ms} ms windows")
        return self

    @property
    def window(self) -> int:
        """Window length in samples."""
        return round(self.window_ms * self.rate / 1000)

    @property
    def hop(self) -> int:
        """Hop in samples."""
        return round(self.hop_ms * self.rate / 1000)

    @property
    def bins(self) -> int:
        """Number of frequency bins, DC and Nyquist included."""
        return self.fft // 2 + 1

    @property
    def frames_per_second(self) -> float:
        """Frames in one second."""
        return self.rate / self.hop

    def to_frames(self, seconds: float) -> int:
        """Whole frames in so many seconds."""
        return round(seconds * self.frames_per_second)


class BandSettings(Settings):
    """Rows on which the scorer listens and the mask lives.

    `mel` sums power over triangular mel bands; `linear` keeps the FFT's own bins, as in the paper.
    """

    scale: Literal["mel", "linear"] = "mel"
    count: int = Field(48, ge=8, le=256, description="number of mel bands")
    low_hz: float = Field(40.0, ge=0)
    high_hz: float = Field(8_000.0, gt=0)

    @model_validator(mode="after")
    def _check_limits(self) -> Self:
        if self.low_hz >= self.high_hz:
            raise ValueError(f"bands from {self.low_hz} Hz up to {self.high_hz} Hz hold nothing")
        return self


class ScorerSettings(Settings):
    """Size and shape of the scorer L_c (paper III)."""

    bands: BandSettings = BandSettings()
    depth: int = Field(3, ge=1, le=8, description="convolutions")
    width: int = Field(12, ge=2, le=256, description="channels of the first; doubled by the second")
    dropout: float = Field(0.3, ge=0, lt=1)
    crop_seconds: float = Field(3.0, ge=0.25, le=30)
    range_db: float = Field(70.0, ge=30, le=120, description="dynamic range heard, below the level")


class Normalization(Settings):
    """What is done to every recording before it is analysed; None where nothing is.

    Parameters
    ----------
    loudness : float or None
        Loudness of every recording, LUFS.
    cutoff_hz : float or None
        Nothing is left above.
    floor_bands_db : tuple of (float or None), or None
        Least level in each of `THIRD_OCTAVES_HZ`, dBFS; None in a band that is not known.
    """

    loudness: float | None = None
    cutoff_hz: float | None = None
    floor_bands_db: tuple[float | None, ...] | None = None


class TrainingSettings(Settings):
    """How scorer and judge are trained."""

    seed: int = Field(0, ge=0, lt=2**31)
    held_out: float = Field(0.2, gt=0, le=0.5, description="share of the takes kept for checking")
    group_by: Literal["file", "folder"] = "file"
    fix: tuple[NormalizedProperty, ...] = Field((), description="made alike on both sides before analysis")
    batch: int = Field(16, ge=2, le=1024, description="crops a side, each step")
    steps: int = Field(400, ge=1)
    check_every: int = Field(25, ge=1, description="steps between looks at the held-out takes")
    patience: int = Field(4, ge=1, description="looks without progress before stopping early")
    learning_rate: float = Field(3e-3, gt=0)
    weight_decay: float = Field(1e-3, ge=0)
    tilt_db: float = Field(3.0, ge=0, description="spread of random tilts, dB over the range")
    mask_db: float = Field(3.0, ge=0, description="spread of random smooth masks added to crops")
    judge: bool = True


class NoteSettings(Settings):
    """Sticky notes (paper III and figure 2): how many, how large, how strong."""

    per_second: float = Field(20.0, gt=0, le=1000)
    width_ms: float = Field(300.0, gt=0)
    height_hz: float = Field(500.0, gt=0)
    gain_db: float = Field(3.0, ge=0, description="spread of the starting gains")
    shape: Literal["rectangular", "square"] = "rectangular"
    smooth_ms: float = Field(90.0, ge=0)
    smooth_hz: float = Field(150.0, ge=0)


class NeighbourSettings(Settings):
    """The `neighbours` prior: what is kept of both folders, and how it is asked."""

    frames: int = Field(6_144, ge=16, le=1_000_000, description="of each folder, while training")
    codes: int = Field(2_048, ge=16, le=100_000, description="of each folder, in the model")
    nearest: int = Field(12, ge=1, le=1_000)
    components: int = Field(32, ge=1, le=144, description="of the fine structure of pitch")
    keep_shape: float = Field(0.25, ge=0, le=1, description="share kept of a frame's own shape")
    keep_level: float = Field(0.6, ge=0, le=1, description="share kept of a frame's own level")
    smooth_ms: float = Field(90.0, ge=0, le=2_000)


class NetworkSettings(Settings):
    """The small networks that predict a mask in one pass."""

    width: int = Field(80, ge=4, le=1_024)
    kernel: int = Field(9, ge=1, le=65)
    dropout: float = Field(0.1, ge=0, lt=1)
    steps: int = Field(500, ge=20, le=100_000)
    batch: int = Field(8, ge=1, le=1_024)
    crop_frames: int = Field(96, ge=8, le=10_000)
    learning_rate: float = Field(2e-3, gt=0)


class GuideSettings(Settings):
    """The guide L_g: the neural loss that the search descends from the prior."""

    width: int = Field(80, ge=4, le=1_024)
    pooled_frames: int = Field(3, ge=1, le=30)
    unit_db2: float = Field(25.0, gt=0, description="brings the gradient to about a dB")
    steps: int = Field(400, ge=20, le=100_000)
    batch: int = Field(16, ge=1, le=1_024)
    crop_frames: int = Field(160, ge=16, le=10_000)
    learning_rate: float = Field(2e-3, gt=0)
    mask_db: float = Field(2.0, ge=0)
    done_share: float = Field(0.15, ge=0, le=1, description="crops that lack nothing")


class PriorsSettings(Settings):
    """What a model learns of its two folders besides the scorer."""

    held_out: float = Field(0.12, gt=0, le=0.5, description="reference takes kept for the cycle")
    doubt: float = Field(
        1.0, ge=0, description="weight of what takes of one folder differ by; 0 believes everything"
    )
    neighbours: NeighbourSettings = NeighbourSettings()
    network: NetworkSettings = NetworkSettings()


class PredictorSettings(Settings):
    """The predictor: a causal network that makes the whole method's mask in one pass."""

    taught: bool = Field(False, description="whether training teaches one")
    width: int = Field(96, ge=4, le=1_024)
    kernel: int = Field(3, ge=2, le=65, description="frames that a convolution sees")
    depth: int = Field(4, ge=1, le=8, description="convolutions; each skips twice the frames")
    lookahead: int = Field(1, ge=0, le=100, description="frames heard before a frame's mask")
    level_seconds: float = Field(8.0, ge=1, le=60, description="over which the level is followed")
    dropout: float = Field(0.1, ge=0, lt=1)
    held_out: float = Field(0.1, gt=0, le=0.5, description="share of the takes kept for checking")
    search_steps: int = Field(6, ge=0, le=100, description="of the search that is learnt from")
    steps: int = Field(1_000, ge=20, le=100_000)
    batch: int = Field(16, ge=1, le=1_024)
    crop_frames: int = Field(160, ge=16, le=10_000)
    learning_rate: float = Field(2e-3, gt=0)
    guide: float = Field(0.3, ge=0, description="weight of the guide's energy against the masks")
    level_db: float = Field(2.0, ge=0, description="spread of random levels")


class PriorSettings(Settings):
    """Where a mask starts and what it is pulled towards."""

    kind: PriorKind = "auto"
    notes: NoteSettings = NoteSettings()
    random_db: float = Field(3.0, gt=0, description="spread of `random`'s pixels")


class SearchSettings(Settings):
    """The search: argmin over M of the neural losses + alpha‖M - M_prior‖² + beta Var(M).

    Norm and variance are means over cells in dB², so alpha and beta are score per dB². The guide
    is weighed against the norm: weight w alone moves the mask by w times what the guide says is
    lacking, whatever alpha is. Where the search listens, every one of them is asked of the sound
    that the mask makes instead of the levels that it asks for.
    """

    score: float = Field(0.0, ge=0, description="weight of the scorer L_c")
    guide: float | None = Field(None, ge=0, description="weight of the guide; none: the model's")
    alpha: float = Field(0.01, ge=0, description="score per dB² of distance from the prior")
    beta: float = Field(0.0, ge=0, description="score per dB² of the mask's variance")
    listen: bool = Field(True, description="to the sound that the mask makes, at every step")
    steps: int = Field(3, ge=0, le=10_000)
    optimiser: OptimizerName = Field("SGD", description="one of torch.optim's")
    learning_rate: float = Field(
        1.0, gt=0, description="SGD: 1 goes to the minimum of the linearised objective"
    )
    stop_at_reference: bool = Field(True, description="stop at the score reference takes get")
    smooth_ms: float = Field(50.0, ge=0, description="averaging of the search's own contribution")


class CertificateSettings(Settings):
    """Limits that an output must keep to be called good."""

    smooth_frames: int = Field(15, ge=1, description="over which an EQ's effect must survive")
    smooth_rows: int = Field(3, ge=1)
    max_roughness_db: float = Field(1.5, gt=0)
    control_seconds: float = Field(12.0, gt=0, description="of the recording, for the control")
    control_steps: int = Field(30, ge=0, le=1_000, description="0 leaves the control out")


class AspectSettings(Settings):
    """What of a mask is wanted: one aspect of it, in one band, in one span of time.

    Outside of band and span nothing changes; the fades lie inside.
    """

    only: MaskComponent = Field("all", description="tilt, bands or dynamics-of-bands")
    between: tuple[float, float] | None = Field(None, description="Hz, lower and upper end")
    start_s: float | None = Field(None, ge=0)
    end_s: float | None = Field(None, gt=0)

    @model_validator(mode="after")
    def _check_limits(self) -> Self:
        if self.between is not None and not 0 < self.between[0] < self.between[1]:
            low, high = self.between
            raise ValueError(f"a band from {low:g} Hz to {high:g} Hz holds nothing; give LOW:HIGH")
        if self.end_s is not None and (self.start_s or 0) >= self.end_s:
            raise ValueError(f"a span from {self.start_s:g} s to {self.end_s:g} s holds nothing")
        return self

    @property
    def is_limited(self) -> bool:
        """Whether some band or span is to be left as it is."""
        return any(it is not None for it in (self.between, self.start_s, self.end_s))


class RenderSettings(Settings):
    """How a mask becomes sound."""

    amount: float = Field(1.0, ge=0, le=1, description="scales the mask in dB; 0 returns the input")
    aspect: AspectSettings = AspectSettings()
    max_gain_db: float = Field(30.0, gt=0, le=60)
    match: bool = Field(True, description="match loudness and hold the true peak")
    gain_db: float = Field(0.0, ge=-60, le=60, description="of the output where it is not matched")
    ceiling_dbtp: float = Field(-1.0, le=0)

    @property
    def matches_loudness(self) -> bool:
        """Whether one gain may change all of the recording: not where a part is to be left."""
        return self.match and not self.aspect.is_limited


class EnhanceSettings(Settings):
    """All that decides an output, apart from the recording and the model."""

    method: EnhanceMethod = "search"
    prior: PriorSettings = PriorSettings()
    search: SearchSettings = SearchSettings()
    render: RenderSettings = RenderSettings()
    certificate: CertificateSettings = CertificateSettings()
    force: bool = Field(False, description="reshape what is unlike the source folder too")
    seed: int = Field(0, ge=0, lt=2**31)


class ModelSettings(Settings):
    """All that decides a model, apart from the recordings."""

    spectrum: SpectrumSettings = SpectrumSettings()
    scorer: ScorerSettings = ScorerSettings()
    training: TrainingSettings = TrainingSettings()
    priors: PriorsSettings = PriorsSettings()
    guide: GuideSettings = GuideSettings()
    predictor: PredictorSettings = PredictorSettings()


def default_enhance_settings(method: str) -> EnhanceSettings:
    """Defaults of a method.

    `predict_gain` takes what the predictor makes as it is.

    `paper` starts from random notes, is pulled towards no change at all, minimises the objective
    on the spectrogram's own bins, and stops nowhere early.
    """
    if method == "paper":
        return EnhanceSettings(
            method="paper",
            prior=PriorSettings(kind="blocks"),
            search=SearchSettings(
                score=1.0,
                guide=0.0,
                alpha=1e-3,
                beta=1e-3,
                steps=100,
                optimiser="Adam",
                learning_rate=0.3,
                stop_at_reference=False,
                listen=False,
            ),
            render=RenderSettings(max_gain_db=18.0),
        )
    if method == "predicted":
        return EnhanceSettings(
            method="predicted",
            prior=PriorSettings(kind="predicted"),
            search=SearchSettings(steps=0),
        )
    return apply_assignments(EnhanceSettings(), [f"method={json.dumps(method)}"])


SettingsT = TypeVar("SettingsT", bound=Settings)


def apply_assignments(settings: SettingsT, assignments: Sequence[str]) -> SettingsT:
    """Settings with some fields changed by dotted name.

    Parameters
    ----------
    assignments : sequence of str
        Such as `search.alpha=0.02`; values are JSON, or plain words.

    Raises
    ------
    CallError
        A name or value is wrong; it is named.

    Examples
    --------
    >>> changed(EnhanceSettings(), ["search.alpha=0.02"]).search.alpha
    0.02
    """
    tree = settings.model_dump()
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        *path, last = name.strip().split(".")
        branch: Any = tree
        for part in path:
            branch = branch.get(part) if isinstance(branch, dict) else None
        if not equals or not isinstance(branch, dict) or last not in branch:
            raise CallError(f"{assignment!r} sets nothing; give GROUP.NAME=VALUE of a setting")
        try:
            branch[last] = json.loads(text)
        except ValueError:
            branch[last] = text
    try:
        return type(settings).model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        if first["type"] == "value_error":  # of fields together, which the message names
            raise CallError(": ".join(filter(None, (name, str(first["ctx"]["error"]))))) from None
        why = first["msg"][:1].lower() + first["msg"][1:]
        raise CallError(f"{name} is {first['input']!r}: {why}") from None
