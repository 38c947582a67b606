"""Types of settings: the names to choose from, and the changes that `replace` takes.

There is one dictionary type for each group of `tonewood.settings`, so that mypy checks the names and types of
`settings.replace(search=dict(steps=0))`. A test compares both modules field by field.
"""

from typing import Literal, TypedDict

PriorKind = Literal["auto", "none", "random", "blocks", "static", "neighbours", "network", "predicted"]
EnhanceMethod = Literal["search", "paper", "predicted"]
NormalizedProperty = Literal["level", "bandwidth", "noise"]
TrainingTargets = Literal["graded", "labels"]
NoteShape = Literal["rectangular", "square"]
MaskComponent = Literal["all", "tilt", "bands", "dynamics-of-bands"]
ChannelLink = Literal["all", "mid-side", "off"]
GainDirection = Literal["both", "cut", "boost"]
# The optimizers of torch.optim that take dense gradients of any shape and need only a step size.
OptimizerName = Literal[
    "Adam", "AdamW", "NAdam", "RAdam", "Adamax", "Adagrad", "Adadelta", "Adafactor", "RMSprop",
    "Rprop", "SGD", "ASGD", "LBFGS",
]  # fmt: skip


class SpectrumChanges(TypedDict, total=False):
    """Changes of `SpectrumSettings`."""

    rate: int
    window_ms: float
    hop_ms: float
    fft: int
    floor_db: float


class BandChanges(TypedDict, total=False):
    """Changes of `BandSettings`."""

    scale: Literal["mel", "linear"]
    count: int
    low_hz: float
    high_hz: float


class ScorerChanges(TypedDict, total=False):
    """Changes of `ScorerSettings`."""

    bands: BandChanges
    depth: int
    width: int
    dropout: float
    crop_seconds: float
    range_db: float


class TrainingChanges(TypedDict, total=False):
    """Changes of `TrainingSettings`."""

    seed: int
    held_out: float
    group_by: Literal["file", "folder"]
    fix: tuple[NormalizedProperty, ...]
    batch: int
    steps: int
    check_every: int
    patience: int
    learning_rate: float
    weight_decay: float
    targets: TrainingTargets
    tilt_db: float
    mask_db: float
    judge: bool


class NoteChanges(TypedDict, total=False):
    """Changes of `NoteSettings`."""

    per_second: float
    width_ms: float
    height_hz: float
    gain_db: float
    shape: NoteShape
    smooth_ms: float
    smooth_hz: float


class NeighbourChanges(TypedDict, total=False):
    """Changes of `NeighbourSettings`."""

    frames: int
    codes: int
    nearest: int
    components: int
    keep_shape: float
    keep_level: float
    smooth_ms: float


class NetworkChanges(TypedDict, total=False):
    """Changes of `NetworkSettings`."""

    width: int
    kernel: int
    dropout: float
    steps: int
    batch: int
    crop_frames: int
    learning_rate: float


class GuideChanges(TypedDict, total=False):
    """Changes of `GuideSettings`."""

    width: int
    pooled_frames: int
    unit_db2: float
    steps: int
    batch: int
    crop_frames: int
    learning_rate: float
    mask_db: float
    done_share: float


class PriorsChanges(TypedDict, total=False):
    """Changes of `PriorsSettings`."""

    held_out: float
    doubt: float
    neighbours: NeighbourChanges
    network: NetworkChanges


class PredictorChanges(TypedDict, total=False):
    """Changes of `PredictorSettings`."""

    taught: bool
    width: int
    kernel: int
    depth: int
    lookahead: int
    level_seconds: float
    dropout: float
    held_out: float
    search_steps: int
    steps: int
    batch: int
    crop_frames: int
    learning_rate: float
    guide: float
    level_db: float


class PriorChanges(TypedDict, total=False):
    """Changes of `PriorSettings`."""

    kind: PriorKind
    notes: NoteChanges
    random_db: float


class SearchChanges(TypedDict, total=False):
    """Changes of `SearchSettings`."""

    score: float
    guide: float | None
    alpha: float
    beta: float
    listen: bool
    steps: int
    optimiser: OptimizerName
    learning_rate: float
    stop_at_reference: bool
    smooth_ms: float


class CertificateChanges(TypedDict, total=False):
    """Changes of `CertificateSettings`."""

    smooth_frames: int
    smooth_rows: int
    max_roughness_db: float
    control_seconds: float
    control_steps: int


class AspectChanges(TypedDict, total=False):
    """Changes of `AspectSettings`."""

    only: MaskComponent
    between: tuple[float, float] | None
    start_s: float | None
    end_s: float | None


class ShapeChanges(TypedDict, total=False):
    """Changes of `ShapeSettings`."""

    smooth_octaves: float
    smooth_seconds: float
    low_hz: float | None
    high_hz: float | None
    direction: GainDirection


class CurveChanges(TypedDict, total=False):
    """Changes of `CurveSettings`."""

    points: tuple[tuple[float, float], ...]
    replaces_static: bool


class RenderChanges(TypedDict, total=False):
    """Changes of `RenderSettings`."""

    amount: float
    aspect: AspectChanges
    shape: ShapeChanges
    curve: CurveChanges
    link: ChannelLink
    max_gain_db: float
    match: bool
    gain_db: float
    ceiling_dbtp: float


class EnhanceChanges(TypedDict, total=False):
    """Changes of `EnhanceSettings`."""

    method: EnhanceMethod
    prior: PriorChanges
    search: SearchChanges
    render: RenderChanges
    certificate: CertificateChanges
    force: bool
    seed: int


class ModelChanges(TypedDict, total=False):
    """Changes of `ModelSettings`."""

    spectrum: SpectrumChanges
    scorer: ScorerChanges
    training: TrainingChanges
    priors: PriorsChanges
    guide: GuideChanges
    predictor: PredictorChanges
