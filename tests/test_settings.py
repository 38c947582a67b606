import json
import pickle
from types import UnionType
from typing import Annotated, Union, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tonewood import setting_types
from tonewood.errors import CallError
from tonewood.setting_types import Settings, apply_assignments, list_settings, validated_settings
from tonewood.settings import (
    BandSettings,
    EnhanceSettings,
    ModelSettings,
    Normalization,
    NoteSettings,
    RenderSettings,
    ScorerSettings,
    SearchSettings,
    SpectrumSettings,
    TrainingSettings,
    default_enhance_settings,
)


def groups(base: type[Settings] = Settings) -> list[type[Settings]]:
    """Return every group of settings; found by itself, so that a new group is tested too."""
    children = [group for group in base.__subclasses__() if group.__module__ == "tonewood.settings"]
    return children + [grandchild for group in children for grandchild in groups(group)]


def test_all_groups_are_listed() -> None:
    assert {ModelSettings, EnhanceSettings, SpectrumSettings, NoteSettings} <= set(groups())


def without_units(annotation: object) -> object:
    """Return a type without the units of `Annotated`, and with groups as their dictionaries of changes."""
    if isinstance(annotation, type) and issubclass(annotation, Settings):
        return getattr(setting_types, annotation.__name__.removesuffix("Settings") + "Changes")
    if get_origin(annotation) is Annotated:
        return get_args(annotation)[0]
    if get_origin(annotation) is UnionType or get_origin(annotation) is Union:
        return Union[tuple(without_units(item) for item in get_args(annotation))]  # noqa: UP007
    if get_origin(annotation) is tuple:
        return tuple[tuple(without_units(item) for item in get_args(annotation))]  # type: ignore[misc]
    return annotation


@pytest.mark.parametrize("group", [group for group in groups() if group is not Normalization])
def test_types_of_changes_match_the_fields(group: type[Settings]) -> None:
    changes = without_units(group)
    fields = {name: without_units(field.annotation) for name, field in group.model_fields.items()}
    assert get_type_hints(changes) == fields
    assert list(fields) == list(changes.__annotations__)


@pytest.mark.parametrize("group", groups())
def test_defaults_are_valid_and_convert_to_json(group: type[Settings]) -> None:
    settings = group()
    assert group.model_validate(settings.model_dump()) == settings
    assert group.model_validate_json(settings.model_dump_json()) == settings
    assert json.loads(settings.model_dump_json()) == settings.model_dump(mode="json")


@pytest.mark.parametrize("group", groups())
def test_groups_are_frozen(group: type[Settings]) -> None:
    settings = group()
    name = next(iter(group.model_fields))
    with pytest.raises(ValidationError, match="frozen"):
        setattr(settings, name, getattr(settings, name))
    assert hash(settings) == hash(group())


@pytest.mark.parametrize("group", groups())
def test_unknown_field_is_rejected(group: type[Settings]) -> None:
    with pytest.raises(ValidationError, match=r"misspelt\s+Extra inputs are not permitted"):
        group.model_validate({"misspelt": 1})


@given(
    alpha=st.floats(0, 10),
    steps=st.integers(0, 10_000),
    amount=st.floats(-1, 2),
    shape=st.sampled_from(["rectangular", "square"]),
    stop=st.booleans(),
)
def test_json_round_trip_is_exact(alpha: float, steps: int, amount: float, shape: str, stop: bool) -> None:
    settings = EnhanceSettings.model_validate(
        {
            "search": {"alpha": alpha, "steps": steps, "stop_at_reference": stop},
            "render": {"amount": amount},
            "prior": {"notes": {"shape": shape}},
        }
    )
    back = EnhanceSettings.model_validate_json(settings.model_dump_json())
    assert back == settings
    assert back.search.alpha == alpha
    assert back.prior.notes.shape == shape


def test_default_spectrum_is_the_papers_in_samples_and_bins() -> None:
    paper = SpectrumSettings()
    assert (paper.window, paper.hop, paper.bins) == (480, 160, 257)
    assert paper.frames_per_second == 100
    assert paper.to_frames(3.0) == 300
    assert paper.to_frames(0.254) == 25


def test_samples_and_bins_follow_the_rate() -> None:
    other = SpectrumSettings(rate=22_050, fft=1_024)
    assert (other.window, other.hop, other.bins) == (662, 220, 513)
    assert other.frames_per_second == pytest.approx(100.2, abs=0.05)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"window_ms": 40.0}, "a window of 640 samples does not fit an FFT of 512"),
        ({"hop_ms": 16.0}, "a hop of 16.0 ms leaves gaps between 30.0 ms windows"),
        ({"rate": 4_000}, "greater than or equal to 8000"),
        ({"fft": 10_000}, "less than or equal to 8192"),
        ({"floor_db": -10.0}, "less than or equal to -60"),
    ],
)
def test_impossible_spectrum_is_rejected(fields: dict[str, float], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        SpectrumSettings.model_validate(fields)


@pytest.mark.parametrize(
    ("group", "fields"),
    [
        (BandSettings, {"scale": "bark"}),
        (BandSettings, {"count": 4}),
        (BandSettings, {"high_hz": float("inf")}),
        (ScorerSettings, {"dropout": 1.0}),
        (ScorerSettings, {"crop_seconds": 0.1}),
        (ScorerSettings, {"depth": 0}),
        (TrainingSettings, {"held_out": 0.0}),
        (TrainingSettings, {"seed": -1}),
        (TrainingSettings, {"group_by": "composer"}),
        (NoteSettings, {"shape": "round"}),
        (SearchSettings, {"alpha": -0.1}),
        (SearchSettings, {"learning_rate": 0}),
        (RenderSettings, {"amount": 2.5}),
        (RenderSettings, {"ceiling_dbtp": 1.0}),
        (RenderSettings, {"max_gain_db": 0}),
        (EnhanceSettings, {"method": "magic"}),
    ],
)
def test_value_outside_its_limits_is_rejected(group: type[Settings], fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=next(iter(fields))):
        group.model_validate(fields)


def test_replace_changes_nested_fields_and_keeps_the_others() -> None:
    before = EnhanceSettings()
    after = before.replace(search=dict(steps=0), render=dict(aspect=dict(between=(100, 200))), force=True)
    assert (after.search.steps, after.render.aspect.between, after.force) == (0, (100.0, 200.0), True)
    assert after.search.alpha == before.search.alpha
    assert before == EnhanceSettings()
    assert before.replace() == before


def test_replace_names_a_wrong_value() -> None:
    with pytest.raises(CallError, match=r"^search\.steps is -1: give a whole number from 0 to 10000$"):
        EnhanceSettings().replace(search=dict(steps=-1))


def test_assignments_change_fields_by_dotted_name() -> None:
    before = EnhanceSettings()
    after = apply_assignments(
        before,
        [
            "search.alpha=0.5",
            "search.steps = 7",
            "prior.notes.shape=square",
            "render.match=false",
            "prior.kind=static",
            'search.optimiser="LBFGS"',
            "seed=3",
        ],
    )
    assert after == before.replace(
        search=dict(alpha=0.5, steps=7, optimiser="LBFGS"),
        prior=dict(kind="static", notes=dict(shape="square")),
        render=dict(match=False),
        seed=3,
    )
    assert before == EnhanceSettings()


@pytest.mark.parametrize("method", ["search", "paper", "predicted"])
def test_only_values_that_were_given_count_as_chosen(method: str) -> None:
    defaults = default_enhance_settings(method)
    assert not defaults.model_fields_set
    assert not defaults.search.model_fields_set
    changed = apply_assignments(
        defaults.replace(search=dict(steps=defaults.search.steps)), ["search.guide=0", "seed=0"]
    )
    assert changed.model_fields_set == {"search", "seed"}
    assert changed.search.model_fields_set == {"steps", "guide"}
    assert not changed.prior.model_fields_set
    assert pickle.loads(pickle.dumps(changed)).search.model_fields_set == {"steps", "guide"}


def test_a_group_that_was_replaced_by_a_number_is_an_error() -> None:
    with pytest.raises(CallError, match=r"^search"):
        apply_assignments(EnhanceSettings(), ["search=5"])
    assert apply_assignments(EnhanceSettings(), ["search=5", "search.steps=1"]).search.steps == 1


def test_no_assignments_change_nothing() -> None:
    assert apply_assignments(ModelSettings(), []) == ModelSettings()


def test_last_assignment_of_a_name_counts() -> None:
    assert apply_assignments(EnhanceSettings(), ["seed=1", "seed=2"]).seed == 2


@pytest.mark.parametrize(
    ("assignment", "suggestion"),
    [
        ("search.gamma=1", "search.alpha"),
        ("serach.alpha=1", "search.alpha"),
        ("search.step=1", "search.steps"),
        ("alpha=1", "search.alpha"),
        ("steps=1", "search.steps"),
        ("search.alpha.x=1", "search.alpha"),
        ("seed.x=1", "seed"),
        ("a.b.c=1", None),
        ("render.between=1", "render.aspect.between"),
        ("=1", None),
        ("zzz=1", None),
    ],
)
def test_unknown_setting_gets_the_nearest_name(assignment: str, suggestion: str | None) -> None:
    with pytest.raises(CallError) as caught:
        apply_assignments(EnhanceSettings(), [assignment])
    hint = f"did you mean {suggestion}? " if suggestion else ""
    name = assignment.partition("=")[0]
    assert str(caught.value) == f"there is no setting {name!r}: {hint}`tonewood settings` lists all of them"


def test_unknown_name_inside_a_group_gets_the_nearest_name() -> None:
    message = r"^there is no setting 'search\.stpes': did you mean search\.steps\? `tonewood settings` lists"
    with pytest.raises(CallError, match=message):
        apply_assignments(EnhanceSettings(), ['search={"stpes": 0}'])
    with pytest.raises(CallError, match=message):
        validated_settings(EnhanceSettings, {"search": {"stpes": 0}})


@pytest.mark.parametrize("text", ["search.alpha", ""])
def test_text_without_equals_sign_is_not_an_assignment(text: str) -> None:
    with pytest.raises(CallError, match=r"is not an assignment: give NAME=VALUE, as in search\.alpha=0\.02"):
        apply_assignments(EnhanceSettings(), [text])


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("render.amount=3", "^render.amount is 3: give a number from -1 to 2$"),
        ("search.steps=many", "^search.steps is 'many': give a whole number from 0 to"),
        ("search.alpha=-1", "^search.alpha is -1: "),
        ("prior.kind=best", "^prior.kind is 'best': choose auto, none"),
        ("search=3", "^search is 3: "),
    ],
)
def test_wrong_value_is_named_with_its_limit(assignment: str, message: str) -> None:
    with pytest.raises(CallError, match=message):
        apply_assignments(EnhanceSettings(), [assignment])


@pytest.mark.parametrize("number", ["Infinity", "-Infinity", "NaN", "1e999"])
def test_infinite_number_is_rejected(number: str) -> None:
    """JSON has no infinite numbers, so a recipe with one could not be read again."""
    with pytest.raises(CallError, match=r"search\.alpha is -?(inf|nan): "):
        apply_assignments(EnhanceSettings(), [f"search.alpha={number}"])


@pytest.mark.parametrize(
    ("before", "assignment", "message"),
    [
        (ModelSettings(), "spectrum.hop_ms=20", "^spectrum: a hop of 20.0 ms leaves gaps"),
        (SpectrumSettings(), "hop_ms=20", "^a hop of 20.0 ms leaves gaps"),
        (
            ModelSettings(),
            "scorer.bands.low_hz=9000",
            "^scorer.bands: bands from 9000.0 Hz up to 8000.0 Hz are empty$",
        ),
    ],
)
def test_values_that_do_not_fit_together_are_named_in_one_line(
    before: Settings, assignment: str, message: str
) -> None:
    with pytest.raises(CallError, match=message) as caught:
        apply_assignments(before, [assignment])
    assert len(str(caught.value)) < 100


@pytest.mark.parametrize("group", [EnhanceSettings, ModelSettings])
def test_list_describes_every_setting(group: type[Settings]) -> None:
    listed = list(list_settings(group))
    for info in listed:
        # The default, given back by its name, changes nothing.
        assert apply_assignments(group(), [f"{info.name}={json.dumps(info.default)}"]) == group()
        assert info.meaning, f"{info.name} has no description"
        suffix = info.name.rpartition("_")[2]
        expected = {"ms": "ms", "hz": "Hz", "s": "s", "seconds": "s", "db": "dB", "frames": "frames"}.get(
            suffix
        )
        assert expected is None or info.unit.startswith(expected), info.name

    def leaves(tree: dict[str, object]) -> int:
        return sum(leaves(value) if isinstance(value, dict) else 1 for value in tree.values())

    assert len(listed) == leaves(group().tree())


def test_list_states_default_unit_and_limits() -> None:
    listed = {info.name: info for info in list_settings(EnhanceSettings)}
    assert listed["render.amount"][1:4] == (1.0, "", "from -1 to 2")
    assert listed["render.aspect.between"].unit == "Hz"
    assert listed["render.aspect.start_s"][1:4] == (None, "s", "from 0")
    assert listed["method"].limits == "search, paper, predicted"


def test_each_method_has_its_defaults() -> None:
    assert default_enhance_settings("search") == EnhanceSettings()
    paper = default_enhance_settings("paper")
    assert paper.method == "paper"
    assert paper.prior.kind == "blocks"
    assert not paper.search.stop_at_reference
    assert paper.search.alpha > 0
    assert paper.search.beta > 0
    with pytest.raises(CallError, match="method is 'magic': choose search"):
        default_enhance_settings("magic")
