"""Base of the settings, and their types: names to choose from, and the changes that `replace` takes.

Groups of settings are frozen, validate themselves, convert to and from JSON, and can be changed and listed by
dotted names. There is one dictionary type for the changes of each group of `tonewood.settings`, so that mypy
checks the names and types of `settings.replace(search=dict(steps=0))`. A test compares both modules.
"""

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple, Self, TypedDict, TypeVar, cast, get_args

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from tonewood.errors import CallError


class Unit(NamedTuple):
    """Unit of a setting, kept as metadata of its type."""

    name: str


Hertz = Annotated[float, Unit("Hz")]
Seconds = Annotated[float, Unit("s")]
Milliseconds = Annotated[float, Unit("ms")]
Decibels = Annotated[float, Unit("dB")]
Frames = Annotated[int, Unit("frames")]


class Settings(BaseModel):
    """Base class of all groups: immutable; unknown names and infinite numbers are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def tree(self) -> dict[str, Any]:
        """Return all values by name, groups as nested dictionaries; files may leave some out."""
        values = ((name, getattr(self, name)) for name in type(self).model_fields)
        return {name: value.tree() if isinstance(value, Settings) else value for name, value in values}

    def as_defaults(self) -> Self:
        """Return a copy in which no value counts as chosen, for the defaults of a method.

        `model_fields_set` names the values that were chosen, also those that equal their default.
        """
        values = {name: getattr(self, name) for name in type(self).model_fields}
        for name, value in values.items():
            if isinstance(value, Settings):
                values[name] = value.as_defaults()
        return cast("Self", type(self).model_construct(set(), **values))

    def changed_by(self, changes: Mapping[str, Any]) -> Self:
        """Return a validated copy; a nested mapping changes a nested group.

        What is changed counts as chosen. The subclasses' typed `replace` methods call this, so that
        mypy checks names and types.

        Raises
        ------
        CallError
            A name or value is wrong.
        """
        changed = validated_settings(type(self), _merged(self.tree(), changes))
        return _with_chosen(changed, self, changes)


SettingsT = TypeVar("SettingsT", bound=Settings)


def _merged(tree: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested settings with changes applied, group by group."""
    merged = dict(tree)
    for name, value in changes.items():
        # A mapping changes a group; anything else replaces the value, groups included.
        nested = isinstance(value, Mapping) and isinstance(merged.get(name), dict)
        merged[name] = _merged(merged[name], value) if nested else value
    return merged


def _with_chosen(changed: SettingsT, before: Settings, changes: Mapping[str, Any]) -> SettingsT:
    """Return changed settings, of which those count as chosen that did before or were changed now."""
    values = {name: getattr(changed, name) for name in type(changed).model_fields}
    for name, value in values.items():
        change = changes.get(name, {})
        if isinstance(value, Settings) and isinstance(change, Mapping):
            values[name] = _with_chosen(value, getattr(before, name), change)
    return cast(
        "SettingsT", type(changed).model_construct(before.model_fields_set | changes.keys(), **values)
    )


def setting_fields(group: type[Settings], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Yield the dotted name and the field of every setting of a group and the groups in it."""
    for name, field in group.model_fields.items():
        if isinstance(field.default, Settings):
            yield from setting_fields(type(field.default), f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field


def unknown_setting(group: type[Settings], name: str) -> str:
    """Return the message for a name that no setting of a group has, with the nearest name."""
    names = [full for full, _ in setting_fields(group)]
    # A name without its group is a frequent slip, and its spelling may be far from the full one.
    last = name.rpartition(".")[2]
    nearest = difflib.get_close_matches(name, names, n=1) or [
        full for full in names if last and full.rpartition(".")[2] == last
    ]
    hint = f"did you mean {nearest[0]}? " if nearest else ""
    return f"there is no setting {name!r}: {hint}`tonewood settings` lists all of them"


def validated_settings(group: type[SettingsT], tree: Mapping[str, Any]) -> SettingsT:
    """Return settings made of nested values; CallError with the name of the first wrong one."""
    try:
        return group.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(key) for key in first["loc"])
        if first["type"] == "extra_forbidden":
            raise CallError(unknown_setting(group, name)) from None
        if first["type"] == "value_error":  # of several fields together, which the message names
            raise CallError(": ".join(filter(None, (name, str(first["ctx"]["error"]))))) from None
        field = dict(setting_fields(group)).get(".".join(key for key in first["loc"] if isinstance(key, str)))
        raise CallError(f"{name} is {describe_invalid_value(first, field)}") from None


def setting_limits(field: FieldInfo) -> str:
    """Return the bounds of a number, as in `from 0 to 1`, or the words to choose from."""
    bounds = {key: getattr(item, key) for item in field.metadata for key in _BOUNDS if hasattr(item, key)}
    if bounds:
        return " ".join(f"{word} {bounds[key]}" for key, word in _BOUNDS.items() if key in bounds)
    return ", ".join(_choices(field.annotation))


def _choices(annotation: Any) -> Iterator[str]:  # noqa: ANN401
    """Yield the words of a Literal type, also inside a tuple type."""
    for item in get_args(annotation):
        if isinstance(item, str):
            yield item
        else:
            yield from _choices(item)


def describe_invalid_value(error: ErrorDetails, field: FieldInfo | None) -> str:
    """Return an invalid value and what to give instead, as in `50: give a number from 0 to 1`."""
    value, error_type = error["input"], error["type"]
    text = f"{value:g}" if isinstance(value, float) else repr(value)
    limits = setting_limits(field) if field else ""
    if limits and error_type == "literal_error":
        return f"{text}: choose {limits}"
    if error_type.startswith(("int_", "float_", "finite_number", "less_than", "greater_than")):
        number = "whole number" if field and field.annotation is int else "number"
        return f"{text}: give a {number} {limits}".rstrip()
    if error_type.startswith("bool_"):
        return f"{text}: give true or false"
    return f"{text}: {error['msg'][:1].lower()}{error['msg'][1:]}"


def apply_assignments(settings: SettingsT, assignments: Sequence[str]) -> SettingsT:
    """Return a copy changed by assignments of the form `search.alpha=0.02`, as `--set` takes them.

    Values are JSON or plain words; the last assignment of a name counts.

    Raises
    ------
    CallError
        A name or value is wrong.

    Examples
    --------
    >>> from tonewood.settings import EnhanceSettings
    >>> apply_assignments(EnhanceSettings(), ["search.alpha=0.02"]).search.alpha
    0.02
    """
    tree, changes = settings.tree(), dict[str, Any]()
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        name = name.strip()
        if not equals:
            raise CallError(f"{assignment!r} is not an assignment: give NAME=VALUE, as in search.alpha=0.02")
        *path, last = name.split(".")
        branch: Any = tree
        for group in path:
            branch = branch.get(group) if isinstance(branch, dict) else None
        if not isinstance(branch, dict) or last not in branch:
            raise CallError(unknown_setting(type(settings), name))
        change = changes
        for group in path:
            if not isinstance(change.get(group), dict):
                change[group] = {}
            change = change[group]
        try:
            change[last] = json.loads(text)
        except ValueError:
            change[last] = text
    return settings.changed_by(changes)


class SettingInfo(NamedTuple):
    """Description of one setting."""

    name: str  # dotted, as `--set` takes it
    default: Any  # as JSON
    unit: str  # empty if it has none
    limits: str  # allowed values, as in `from 0 to 1`; empty if all of the type are
    meaning: str


def list_settings(group: type[Settings]) -> Iterator[SettingInfo]:
    """Yield a description of every setting of a group and the groups in it."""
    for name, field in setting_fields(group):
        unit = next(_units((field.annotation, *field.metadata)), "")
        default = list(field.default) if isinstance(field.default, tuple) else field.default
        limits = setting_limits(field)
        yield SettingInfo(name, default, unit, limits, field.description or "")


def _units(annotations: Sequence[Any]) -> Iterator[str]:
    """Yield the units in annotations, however deep: `Seconds | None` has its unit inside."""
    for annotation in annotations:
        if isinstance(annotation, Unit):
            yield annotation.name
        else:
            yield from _units(get_args(annotation))


# --- Names to choose from, and changes

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
    gains_only: bool
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


_BOUNDS = {"ge": "from", "gt": "above", "le": "to", "lt": "below"}
