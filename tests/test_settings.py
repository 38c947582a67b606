import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tonewood.errors import CallError
from tonewood.settings import (
    BandSettings,
    EnhanceSettings,
    ModelSettings,
    NoteSettings,
    RenderSettings,
    ScorerSettings,
    SearchSettings,
    Settings,
    SpectrumSettings,
    TrainingSettings,
    apply_assignments,
    default_enhance_settings,
)


def groups(base: type[Settings] = Settings) -> list[type[Settings]]:
    """Every group of settings, found by itself so that a new one is tested too."""
    found = [kind for kind in base.__subclasses__() if kind.__module__ == "tonewood.settings"]
    return found + [deeper for kind in found for deeper in groups(kind)]


def test_the_groups_are_all_found() -> None:
    assert {ModelSettings, EnhanceSettings, SpectrumSettings, NoteSettings} <= set(groups())


@pytest.mark.parametrize("group", groups())
def test_defaults_pass_their_own_checks_and_json(group: type[Settings]) -> None:
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
def test_unknown_names_are_refused(group: type[Settings]) -> None:
    with pytest.raises(ValidationError, match=r"misspelt\s+Extra inputs are not permitted"):
        group.model_validate({"misspelt": 1})


@given(
    alpha=st.floats(0, 10),
    steps=st.integers(0, 10_000),
    amount=st.floats(0, 1),
    shape=st.sampled_from(["rectangular", "square"]),
    stop=st.booleans(),
)
def test_json_round_trip_is_exact(alpha: float, steps: int, amount: float, shape: str, stop: bool) -> None:
    made = EnhanceSettings.model_validate(
        {
            "search": {"alpha": alpha, "steps": steps, "stop_at_reference": stop},
            "render": {"amount": amount},
            "prior": {"notes": {"shape": shape}},
        }
    )
    back = EnhanceSettings.model_validate_json(made.model_dump_json())
    assert back == made
    assert back.search.alpha == alpha
    assert back.prior.notes.shape == shape


def test_the_papers_analysis_in_samples_and_bins() -> None:
    paper = SpectrumSettings()
    assert (paper.window, paper.hop, paper.bins) == (480, 160, 257)
    assert paper.frames_per_second == 100
    assert paper.to_frames(3.0) == 300
    assert paper.to_frames(0.254) == 25


def test_derived_values_follow_the_rate() -> None:
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
def test_an_analysis_that_cannot_work_is_refused(fields: dict[str, float], reason: str) -> None:
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
        (RenderSettings, {"amount": 1.5}),
        (RenderSettings, {"ceiling_dbtp": 1.0}),
        (RenderSettings, {"max_gain_db": 0}),
        (EnhanceSettings, {"method": "magic"}),
    ],
)
def test_values_outside_their_limits_are_refused(group: type[Settings], fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=next(iter(fields))):
        group.model_validate(fields)


def test_changed_sets_by_dotted_name() -> None:
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
    assert after.search.alpha == 0.5
    assert after.search.steps == 7
    assert after.prior.notes.shape == "square"
    assert after.render.match is False
    assert after.prior.kind == "static"
    assert after.search.optimiser == "LBFGS"
    assert after.seed == 3
    assert after.search.beta == before.search.beta
    assert before == EnhanceSettings()


def test_changed_by_nothing_is_the_same() -> None:
    assert apply_assignments(ModelSettings(), []) == ModelSettings()


def test_the_last_assignment_counts() -> None:
    assert apply_assignments(EnhanceSettings(), ["seed=1", "seed=2"]).seed == 2


@pytest.mark.parametrize(
    "assignment",
    [
        "search.gamma=1",
        "serach.alpha=1",
        "alpha=1",
        "search.alpha",
        "",
        "=1",
        "a.b.c=1",
        "search.alpha.x=1",
        "seed.x=1",
    ],
)
def test_names_that_set_nothing_are_refused(assignment: str) -> None:
    with pytest.raises(CallError, match=r"sets nothing; give GROUP\.NAME=VALUE of a setting"):
        apply_assignments(EnhanceSettings(), [assignment])


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("render.amount=2", "^render.amount is 2: input should be less than or equal to 1$"),
        ("search.steps=many", "^search.steps is 'many': input should be a valid integer"),
        ("search.alpha=-1", "^search.alpha is -1: "),
        ("prior.kind=best", "^prior.kind is 'best': input should be 'auto', 'none'"),
        ("search=3", "^search is 3: "),
    ],
)
def test_wrong_values_are_named_with_their_limit(assignment: str, message: str) -> None:
    with pytest.raises(CallError, match=message):
        apply_assignments(EnhanceSettings(), [assignment])


@pytest.mark.parametrize("number", ["Infinity", "-Infinity", "NaN", "1e999"])
def test_numbers_without_end_are_refused(number: str) -> None:
    """JSON has none of them, so a recipe that held one could not be read again."""
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
            "^scorer.bands: bands from 9000.0 Hz up to 8000.0 Hz hold nothing$",
        ),
    ],
)
def test_values_that_do_not_fit_together_are_named_in_one_line(
    before: Settings, assignment: str, message: str
) -> None:
    with pytest.raises(CallError, match=message) as caught:
        apply_assignments(before, [assignment])
    assert len(str(caught.value)) < 100


def test_methods() -> None:
    assert default_enhance_settings("search") == EnhanceSettings()
    paper = default_enhance_settings("paper")
    assert paper.method == "paper"
    assert paper.prior.kind == "blocks"
    assert not paper.search.stop_at_reference
    assert paper.search.alpha > 0
    assert paper.search.beta > 0
    with pytest.raises(CallError, match="method is 'magic': input should be 'search'"):
        default_enhance_settings("magic")
