"""Groups of settings: analysis, scorer, training, priors, search, certificate and rendering.

Functions take a whole group, not its fields. Samples and bins are derived from milliseconds and Hz.
Each field has a description, and a unit in its type where it has one: `tonewood settings` lists both.
"""

from itertools import pairwise
from typing import Annotated, Literal, Self, Unpack, cast

from pydantic import Field, field_validator, model_validator

from tonewood import setting_types as changes_of
from tonewood.setting_types import (
    ChannelLink,
    Decibels,
    EnhanceMethod,
    Frames,
    GainDirection,
    Hertz,
    MaskComponent,
    Milliseconds,
    NormalizedProperty,
    NoteShape,
    OptimizerName,
    PriorKind,
    Seconds,
    Settings,
    TrainingTargets,
    Unit,
)

MIN_AMOUNT, MAX_AMOUNT = -1, 2
MAX_CURVE_DB = 60  # a measured level, which is no gain, is above

# The networks of the priors, the guide and the predictor are trained alike, so these fields have one meaning.
Channels = Annotated[int, Field(ge=4, le=1_024, description="channels")]
Dropout = Annotated[float, Field(ge=0, lt=1, description="dropout probability")]
TrainingSteps = Annotated[int, Field(ge=20, le=100_000, description="training steps")]
CropsPerStep = Annotated[int, Field(ge=1, le=1_024, description="crops per step")]
PeakStepSize = Annotated[float, Field(gt=0, description="largest step size of training")]


class SpectrumSettings(Settings):
    """Analysis of section III of the paper: 16 kHz, 30 ms periodic Hann, 10 ms hop, 512-point FFT."""

    rate: Annotated[int, Unit("Hz")] = Field(
        16_000, ge=8_000, le=48_000, description="sample rate of the analysis"
    )
    window_ms: Milliseconds = Field(30.0, gt=1, le=200, description="length of the window")
    hop_ms: Milliseconds = Field(10.0, gt=1, le=100, description="distance between frames")
    fft: Annotated[int, Unit("points")] = Field(512, ge=64, le=8_192, description="length of the FFT")
    floor_db: Annotated[float, Unit("dBFS")] = Field(
        -140.0, le=-60, description="smaller magnitudes count as this"
    )

    @model_validator(mode="after")
    def _check_window(self) -> Self:
        if self.window > self.fft:
            raise ValueError(f"a window of {self.window} samples does not fit an FFT of {self.fft}")
        # At least 50 % overlap: less leaves samples that no window weighs properly.
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
        """Number of frequency bins, including DC and Nyquist."""
        return self.fft // 2 + 1

    @property
    def frames_per_second(self) -> float:
        """Frame rate."""
        return self.rate / self.hop

    def to_frames(self, seconds: float) -> int:
        """Return a duration in whole frames."""
        return round(seconds * self.frames_per_second)


class BandSettings(Settings):
    """Frequency rows of the scorer and of the mask.

    `mel` sums the power in triangular mel bands; `linear` keeps the bins of the FFT, as in the paper.
    """

    scale: Literal["mel", "linear"] = Field("mel", description="mel bands, or the bins of the FFT")
    count: int = Field(48, ge=8, le=256, description="number of mel bands")
    low_hz: Hertz = Field(40.0, ge=0, description="lower edge of the lowest band")
    high_hz: Hertz = Field(8_000.0, gt=0, description="upper edge of the highest band")

    @model_validator(mode="after")
    def _check_limits(self) -> Self:
        if self.low_hz >= self.high_hz:
            raise ValueError(f"bands from {self.low_hz} Hz up to {self.high_hz} Hz are empty")
        return self


class ScorerSettings(Settings):
    """Size and shape of the scorer L_c (section III of the paper)."""

    bands: BandSettings = BandSettings()
    depth: int = Field(3, ge=1, le=8, description="number of convolutions")
    width: int = Field(
        12, ge=2, le=256, description="channels of the first convolution; the second has twice as many"
    )
    dropout: Dropout = 0.3
    crop_seconds: Seconds = Field(3.0, ge=0.25, le=30, description="length of a training crop")
    range_db: Decibels = Field(70.0, ge=30, le=120, description="dynamic range below the level of the crop")

    def replace(self, **changes: Unpack[changes_of.ScorerChanges]) -> Self:
        """Return a copy with some fields changed."""
        return self.changed_by(changes)


class Normalization(Settings):
    """Processing of every recording before the analysis; None where nothing is changed."""

    loudness: float | None = None  # loudness of every recording, LUFS
    cutoff_hz: float | None = None  # upper limit of the bandwidth
    # Lowest level in each third octave of `THIRD_OCTAVES_HZ`, dBFS; None in a band whose level is unknown
    floor_bands_db: tuple[float | None, ...] | None = None


class TrainingSettings(Settings):
    """Training of scorer and judge."""

    seed: int = Field(0, ge=0, lt=2**31, description="random seed")
    held_out: float = Field(0.2, gt=0, le=0.5, description="share of the recordings kept for validation")
    group_by: Literal["file", "folder"] = Field("file", description="what validation keeps together")
    fix: tuple[NormalizedProperty, ...] = Field(
        (), description="properties made equal on both sides before the analysis"
    )
    batch: int = Field(16, ge=2, le=1024, description="crops per side and step")
    steps: int = Field(400, ge=1, description="maximum number of steps")
    check_every: Annotated[int, Unit("steps")] = Field(25, ge=1, description="distance between validations")
    patience: int = Field(4, ge=1, description="validations without progress before training stops")
    learning_rate: float = Field(3e-3, gt=0, description="initial step size of AdamW")
    weight_decay: float = Field(1e-3, ge=0, description="weight decay of AdamW")
    targets: TrainingTargets = Field("graded", description="graded by distance, or the paper's labels")
    tilt_db: Decibels = Field(3.0, ge=0, description="spread of random tilts, with labels")
    mask_db: Decibels = Field(3.0, ge=0, description="spread of random smooth masks on crops, with labels")
    judge: bool = Field(True, description="train the independent judge too")

    def replace(self, **changes: Unpack[changes_of.TrainingChanges]) -> Self:
        """Return a copy with some fields changed."""
        return self.changed_by(changes)


class NoteSettings(Settings):
    """Sticky notes of the paper (section III and figure 2): number, size and gain."""

    per_second: Annotated[float, Unit("1/s")] = Field(
        20.0, gt=0, le=1000, description="number of notes per second"
    )
    width_ms: Milliseconds = Field(300.0, gt=0, description="duration of a note")
    height_hz: Hertz = Field(500.0, gt=0, description="bandwidth of a note")
    gain_db: Decibels = Field(3.0, ge=0, description="spread of the initial gains")
    shape: NoteShape = Field("rectangular", description="shape of the notes")
    # Left out of recipes if unused, so that those of earlier versions stay as they are.
    gains_only: bool = Field(
        False, description="search the gains of the notes, not of all cells", exclude_if=lambda only: not only
    )
    smooth_ms: Milliseconds = Field(90.0, ge=0, description="smoothing over time")
    smooth_hz: Hertz = Field(150.0, ge=0, description="smoothing over frequency")


class NeighbourSettings(Settings):
    """The `neighbours` prior: size of both codebooks and how they are queried."""

    frames: Frames = Field(
        20_480, ge=16, le=1_000_000, description="frames of each folder that the codes are made of"
    )
    codes: int = Field(1_024, ge=16, le=100_000, description="codes of each folder in the model")
    # 6 of 1,024 codes are the share of 120 of 20,480 frames, where the closed distance is flat.
    nearest: int = Field(6, ge=1, le=1_000, description="number of neighbours")
    components: int = Field(32, ge=1, le=144, description="components of the fine structure of pitch")
    keep_shape: float = Field(
        0.05, ge=0, le=1, description="share of a frame's own spectral shape that is kept"
    )
    keep_level: float = Field(0.8, ge=0, le=1, description="share of a frame's own level that is kept")
    # Longer averages follow the notes less: 90 ms close 1.5 points less of the distance.
    smooth_ms: Milliseconds = Field(30.0, ge=0, le=2_000, description="smoothing over time")


class NetworkSettings(Settings):
    """Small networks that predict a mask in one pass."""

    width: Channels = 80
    kernel: Frames = Field(9, ge=1, le=65, description="frames that a convolution covers")
    dropout: Dropout = 0.1
    steps: TrainingSteps = 500
    batch: CropsPerStep = 8
    crop_frames: Frames = Field(96, ge=8, le=10_000, description="length of a training crop")
    learning_rate: PeakStepSize = 2e-3

    def replace(self, **changes: Unpack[changes_of.NetworkChanges]) -> Self:
        """Return a copy with some fields changed."""
        return self.changed_by(changes)


class GuideSettings(Settings):
    """The guide L_g: a neural loss that the search descends from the prior."""

    width: Channels = 80
    pooled_frames: Frames = Field(3, ge=1, le=30, description="frames that are averaged at the input")
    # The correction is minus the gradient of the energy, so the scale of the energy sets its size in dB.
    unit_db2: Annotated[float, Unit("dB²")] = Field(
        25.0, gt=0, description="scale that makes the gradient about one dB"
    )
    steps: TrainingSteps = 400
    batch: CropsPerStep = 16
    crop_frames: Frames = Field(160, ge=16, le=10_000, description="length of a training crop")
    learning_rate: PeakStepSize = 2e-3
    mask_db: Decibels = Field(2.0, ge=0, description="spread of random smooth masks that are added to crops")
    done_share: float = Field(0.15, ge=0, le=1, description="share of crops that need no correction")


class PriorsSettings(Settings):
    """Training of the priors, which a model learns from its two folders besides the scorer."""

    held_out: float = Field(
        0.12, gt=0, le=0.5, description="share of reference recordings kept for the cycle test"
    )
    doubt: float = Field(
        1.0, ge=0, description="weight of the variation within one folder; 0 ignores it, so nothing is shrunk"
    )
    neighbours: NeighbourSettings = NeighbourSettings()
    network: NetworkSettings = NetworkSettings()


class PredictorSettings(Settings):
    """The predictor: a causal network that approximates the mask of prior and search in one pass."""

    taught: bool = Field(False, description="train a predictor")
    width: Channels = 96
    kernel: Frames = Field(3, ge=2, le=65, description="frames that a convolution covers")
    depth: int = Field(4, ge=1, le=8, description="number of convolutions; each doubles the dilation")
    # Each frame of lookahead adds one hop, 10 ms, to the latency of `tonewood live`.
    lookahead: Frames = Field(1, ge=0, le=100, description="future frames that a frame's mask may depend on")
    level_seconds: Seconds = Field(8.0, ge=1, le=60, description="duration over which the level is measured")
    dropout: Dropout = 0.1
    held_out: float = Field(0.1, gt=0, le=0.5, description="share of the recordings kept for validation")
    # The network learns masks with a lower objective from six steps than from the three of `SearchSettings`.
    search_steps: int = Field(6, ge=0, le=100, description="steps of the search whose masks it learns")
    steps: TrainingSteps = 1_000
    batch: CropsPerStep = 16
    crop_frames: Frames = Field(160, ge=16, le=10_000, description="length of a training crop")
    learning_rate: PeakStepSize = 2e-3
    guide: float = Field(0.3, ge=0, description="weight of the guide's energy against the error of the mask")
    level_db: Decibels = Field(2.0, ge=0, description="spread of random levels")

    def replace(self, **changes: Unpack[changes_of.PredictorChanges]) -> Self:
        """Return a copy with some fields changed."""
        return self.changed_by(changes)


class PriorSettings(Settings):
    """Start of the search: the mask that it is pulled towards."""

    kind: PriorKind = Field("auto", description="prior mask; auto takes the best that the model has")
    notes: NoteSettings = NoteSettings()
    random_db: Decibels = Field(3.0, gt=0, description="spread of the pixels of the prior `random`")


class SearchSettings(Settings):
    """The search: argmin over M of the neural losses + alpha‖M - M_prior‖² + beta Var(M).

    Norm and variance are means over cells in dB², so alpha and beta are score per dB². The guide is weighed
    against the norm: a weight w alone moves the mask by w times the missing correction, whatever alpha is.
    With `listen`, all terms are computed from the rendered sound instead of the gains of the mask.
    """

    score: float = Field(0.0, ge=0, description="weight of the scorer L_c")
    guide: float | None = Field(None, ge=0, description="weight of the guide; null takes the usual one")
    alpha: Annotated[float, Unit("1/dB²")] = Field(
        0.01, ge=0, description="weight of the distance from the prior"
    )
    beta: Annotated[float, Unit("1/dB²")] = Field(0.0, ge=0, description="weight of the variance of the mask")
    listen: bool = Field(True, description="render the mask at every step and evaluate the sound")
    steps: int = Field(3, ge=0, le=10_000, description="number of steps; 0 keeps the prior")
    optimiser: OptimizerName = Field("SGD", description="optimizer of torch.optim")
    # The search has units of the curvature of alpha's term: a plain gradient step of 1 is a Newton step.
    learning_rate: float = Field(
        1.0, gt=0, description="step size; for SGD, 1 goes to the minimum of the linearised objective"
    )
    # Beyond the typical score of the reference, the search fools the scorer instead of improving the sound.
    stop_at_reference: bool = Field(True, description="stop at the typical score of the reference")
    smooth_ms: Milliseconds = Field(50.0, ge=0, description="smoothing of what the search adds to the prior")

    def replace(self, **changes: Unpack[changes_of.SearchChanges]) -> Self:
        """Return a copy with some fields changed."""
        return self.changed_by(changes)


class CertificateSettings(Settings):
    """Limits that an output must keep for a good verdict."""

    smooth_frames: Frames = Field(15, ge=1, description="time over which the effect of an EQ must survive")
    smooth_rows: Annotated[int, Unit("rows")] = Field(
        3, ge=1, description="frequency range over which it must survive"
    )
    max_roughness_db: Decibels = Field(1.5, gt=0, description="roughest mask that is accepted")
    control_seconds: Seconds = Field(
        12.0, gt=0, description="length of the excerpt for the adversarial control"
    )
    # Figure 1 of the paper: random pixels show how far a mask that is not an EQ can fool the judge.
    control_steps: int = Field(0, ge=0, le=1_000, description="steps of the adversarial control; 0 omits it")


class AspectSettings(Settings):
    """Part of a mask that is applied: one component, one band, one span of time.

    Nothing changes outside of band and span; the fades are inside.
    """

    only: MaskComponent = Field("all", description="component of the mask")
    between: tuple[Hertz, Hertz] | None = Field(None, description="band that is changed")
    start_s: Seconds | None = Field(None, ge=0, description="start of the change")
    end_s: Seconds | None = Field(None, gt=0, description="end of the change")

    @field_validator("between")
    @classmethod
    def _check_band(cls, band: tuple[float, float] | None) -> tuple[float, float] | None:
        if band is not None and not 0 < band[0] < band[1]:
            raise ValueError(
                "a band from {:g} Hz to {:g} Hz is empty: give LOW:HIGH, above 0 Hz".format(*band)
            )
        return band

    @model_validator(mode="after")
    def _check_span(self) -> Self:
        if self.end_s is not None and (self.start_s or 0) >= self.end_s:
            raise ValueError(
                f"a span from {self.start_s or 0:g} s to {self.end_s:g} s is empty: end after the start"
            )
        return self

    @property
    def is_limited(self) -> bool:
        """True if a band or a span of time must stay unchanged."""
        return self.between is not None or self.start_s is not None or self.end_s is not None


class ShapeSettings(Settings):
    """Shape of a mask, applied in this order: smoothing, limits, cuts or boosts.

    Unlike the band of an aspect, the limits act on the mask only: the loudness is matched as usual.
    """

    smooth_octaves: Annotated[float, Unit("octaves")] = Field(
        0.0, ge=0, le=4, description="width of the average over frequency"
    )
    smooth_seconds: Seconds = Field(0.0, ge=0, le=60, description="width of the average over time")
    # The mask fades over half an octave outside each limit.
    low_hz: Hertz | None = Field(None, gt=0, description="lowest frequency of the full mask")
    high_hz: Hertz | None = Field(None, gt=0, description="highest frequency of the full mask")
    direction: GainDirection = Field("both", description="keep cuts, boosts or both")

    @model_validator(mode="after")
    def _check_limits(self) -> Self:
        if self.low_hz is not None and self.high_hz is not None and self.low_hz >= self.high_hz:
            raise ValueError(
                f"limits from {self.low_hz:g} Hz to {self.high_hz:g} Hz are empty: give a higher upper limit"
            )
        return self


class CurveSettings(Settings):
    """Gain curve that joins the static part of a mask, before its component, shape and amount."""

    points: tuple[tuple[Hertz, Decibels], ...] = Field((), description="frequencies, rising, and gains")
    replaces_static: bool = Field(False, description="replace the learnt static part instead of adding to it")

    @model_validator(mode="after")
    def _check_points(self) -> Self:
        for hz, gain_db in self.points:
            if not 0 < hz <= 100_000 or abs(gain_db) > MAX_CURVE_DB:
                raise ValueError(
                    f"the curve has {gain_db:g} dB at {hz:g} Hz; gains go from -{MAX_CURVE_DB} to "
                    f"{MAX_CURVE_DB} dB: subtract the level of the curve first"
                )
        if any(low[0] >= high[0] for low, high in pairwise(self.points)):
            raise ValueError("the curve's frequencies do not rise: sort its points")
        return self


class RenderSettings(Settings):
    """Application of a mask to a recording."""

    amount: float = Field(
        1.0, ge=MIN_AMOUNT, le=MAX_AMOUNT, description="factor of the mask in dB; 0 returns the input"
    )
    aspect: AspectSettings = AspectSettings()
    # Left out of files if unused, so that earlier versions of Tonewood read the others.
    shape: ShapeSettings = Field(ShapeSettings(), exclude_if=lambda shape: shape == ShapeSettings())
    curve: CurveSettings = Field(CurveSettings(), exclude_if=lambda curve: curve == CurveSettings())
    link: ChannelLink = Field(
        "all",
        exclude_if=lambda link: link == "all",
        description="one mask for all channels, or masks of their own for mid and side, or for each channel",
    )
    # With 18 dB, as `paper` has it, violins through a headset close 58 instead of 75 % of the distance.
    max_gain_db: Decibels = Field(30.0, gt=0, le=60, description="largest gain or attenuation at amount 1")
    match: bool = Field(True, description="match the loudness of the input and limit the true peak")
    gain_db: Decibels = Field(
        0.0, ge=-60, le=60, description="gain of the output if its loudness is not matched"
    )
    # The highest that EBU R 128 permits.
    ceiling_dbtp: Annotated[float, Unit("dBTP")] = Field(-1.0, le=0, description="highest true peak")

    @property
    def whole(self) -> Self:
        """Settings that apply the whole mask, and as strongly if it is more than full strength."""
        changes = {"amount": max(1.0, self.amount), "aspect": AspectSettings(), "shape": ShapeSettings()}
        return self.model_copy(update=changes)

    @property
    def matches_loudness(self) -> bool:
        """True if the loudness is matched; a gain for it would change what `aspect` leaves alone."""
        return self.match and not self.aspect.is_limited

    def replace(self, **changes: Unpack[changes_of.RenderChanges]) -> Self:
        """Return a copy with some fields changed."""
        return self.changed_by(changes)


class EnhanceSettings(Settings):
    """All settings of an enhancement."""

    method: EnhanceMethod = Field("search", description="method; each has its own defaults")
    prior: PriorSettings = PriorSettings()
    search: SearchSettings = SearchSettings()
    render: RenderSettings = RenderSettings()
    certificate: CertificateSettings = CertificateSettings()
    force: bool = Field(
        False, description="change recordings that are unlike both folders, or like the reference, too"
    )
    seed: int = Field(0, ge=0, lt=2**31, description="random seed")

    def replace(self, **changes: Unpack[changes_of.EnhanceChanges]) -> Self:
        """Return a copy with some fields changed.

        Examples
        --------
        >>> EnhanceSettings().replace(search=dict(steps=0), force=True).search.steps
        0
        """
        return self.changed_by(changes)


class ModelSettings(Settings):
    """All settings of a training."""

    spectrum: SpectrumSettings = SpectrumSettings()
    scorer: ScorerSettings = ScorerSettings()
    training: TrainingSettings = TrainingSettings()
    priors: PriorsSettings = PriorsSettings()
    guide: GuideSettings = GuideSettings()
    predictor: PredictorSettings = PredictorSettings()

    def replace(self, **changes: Unpack[changes_of.ModelChanges]) -> Self:
        """Return a copy with some fields changed."""
        return self.changed_by(changes)


def default_enhance_settings(method: str) -> EnhanceSettings:
    """Return the defaults of a method, none of which counts as chosen.

    `predicted` takes the mask of the predictor as it is. `paper` starts from random notes, is pulled towards
    no change, minimises the objective on the bins of the spectrogram, and never stops early.
    """
    if method == "paper":
        # Equation 2 of the paper, with the whole-way guide as the loss; the values are ours (docs/paper.md).
        search = SearchSettings(
            guide=50.0, alpha=1e-3, beta=1e-3, listen=False, steps=40, optimiser="Adam",
            learning_rate=0.5, stop_at_reference=False,
        )  # fmt: skip
        return EnhanceSettings(
            method="paper",
            prior=PriorSettings(kind="blocks"),
            search=search,
            render=RenderSettings(max_gain_db=18.0),
        ).as_defaults()
    if method == "predicted":
        return EnhanceSettings(
            method="predicted", prior=PriorSettings(kind="predicted"), search=SearchSettings(steps=0)
        ).as_defaults()
    return EnhanceSettings().replace(method=cast("EnhanceMethod", method)).as_defaults()
