"""Simulated listeners with a known preference: the scorer learns it, and enhancing follows it."""

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import soundfile
from scipy.signal import welch
from scipy.stats import kendalltau

from tonewood.data.manifest import BadRecordings
from tonewood.enhancement.analysis import score_array
from tonewood.enhancement.editing import Edit, Note, compose_mask, shape_for_edit
from tonewood.enhancement.mask_search import PREFERENCE_MAX_GAIN_DB
from tonewood.enhancement.pinned_search import search_around_pins
from tonewood.enhancement.pipeline import Enhancement, enhance_array
from tonewood.errors import AudioError, FolderError, ModelError
from tonewood.model.card import card_lines, card_markdown
from tonewood.model.model import Model, load_model
from tonewood.setting_types import PriorKind
from tonewood.settings import EnhanceSettings, ModelSettings
from tonewood.training import pipeline, preferences

Wave = npt.NDArray[np.float32]
RATE = 16_000
SMALL = ModelSettings().replace(scorer=dict(crop_seconds=1.0), training=dict(steps=200, judge=False))
TINY = SMALL.replace(scorer=dict(depth=2, width=8), training=dict(batch=8, steps=150))


def tilt(wave: Wave) -> float:
    """Return what the listeners prefer: the slope of the long-term spectrum, dB per octave."""
    hz, power = welch(wave, RATE, nperseg=2048)
    used = (hz > 100) & (hz < 7_000)
    return float(np.polyfit(np.log2(hz[used]), 10 * np.log10(power[used] + 1e-12), 1)[0])


def tilted(wave: Wave, db: float) -> Wave:
    hz = np.fft.rfftfreq(len(wave), 1 / RATE)
    gain = 10 ** (db * np.log2(np.clip(hz, 60, 8_000) / 700) / 20)
    output = np.fft.irfft(np.fft.rfft(wave) * gain, len(wave))
    return np.asarray(0.1 * output / np.std(output), dtype=np.float32)


@pytest.fixture(scope="module")
def takes(play: Callable[..., Any]) -> Callable[[int, int], list[Wave]]:
    def make(count: int, seed: int) -> list[Wave]:
        rng = np.random.default_rng(seed)
        return [
            tilted(play(3.0, formant_hz=rng.uniform(600, 2_500), seed=seed + k)[0], rng.normal(0, 2))
            for k in range(count)
        ]

    return make


@pytest.fixture(scope="module")
def answers_folder(tmp_path_factory: pytest.TempPathFactory, takes: Callable[..., list[Wave]]) -> Path:
    """600 comparisons of 48 recordings by listeners who like what is bright, and ratings."""
    root, rng = tmp_path_factory.mktemp("answers"), np.random.default_rng(1)
    waves = takes(48, 100)
    taste = np.array([tilt(wave) for wave in waves])
    taste = 3 * (taste - taste.mean()) / taste.std()
    names = [f"{k:02d}.wav" for k in range(len(waves))]
    for name, wave in zip(names, waves, strict=True):
        soundfile.write(root / name, wave, RATE)
    rows: list[Sequence[str]] = [("preferred", "other")]
    for _ in range(600):
        i, j = rng.permutation(len(waves))[:2]
        first = rng.random() < 1 / (1 + np.exp(taste[j] - taste[i]))
        rows.append((names[i], names[j]) if first else (names[j], names[i]))
    with (root / "answers.csv").open("w") as stream:
        csv.writer(stream).writerows(rows)
    with (root / "ratings.csv").open("w") as stream:
        rated = [(name, f"{np.clip(3 + t / 2, 1, 5):.2f}") for name, t in zip(names, taste, strict=True)]
        csv.writer(stream).writerows([("file", "rating"), *rated])
    return root


@pytest.fixture(scope="module")
def preference_model(answers_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Model:
    """Model of these listeners, read back from its file."""
    *events, model = pipeline.train_model(
        None, None, SMALL, preferences=answers_folder / "answers.csv", name="ears"
    )
    assert isinstance(model, Model)
    assert sum(isinstance(item, preferences.ListenerAudioProgress) for item in events) == 48
    path = tmp_path_factory.mktemp("model") / "ears.tonewood"
    model.save(path)
    back = load_model(path)
    assert back.digest == model.digest
    assert back.card == model.card
    return back


def test_scorer_ranks_unseen_recordings_like_listeners(
    preference_model: Model, takes: Callable[..., list[Wave]]
) -> None:
    unseen = takes(30, 5_000)
    scores = [score_array(wave[None], RATE, preference_model).scorer for wave in unseen]
    assert kendalltau(-np.array(scores), [tilt(wave) for wave in unseen]).statistic >= 0.8


def test_enhancing_increases_what_listeners_prefer(
    preference_model: Model, takes: Callable[..., list[Wave]]
) -> None:
    changes, left = [], 0
    for wave in takes(12, 7_000):
        *_, enhancement = enhance_array(wave[None], RATE, preference_model, EnhanceSettings())
        assert isinstance(enhancement, Enhancement)
        assert enhancement.prior == "none"
        assert enhancement.mask.largest_db <= PREFERENCE_MAX_GAIN_DB + 0.01
        if enhancement.steps == 0:  # liked already, or unlike anything that was heard
            left += 1
            assert enhancement.mask.largest_db == 0
        else:
            changes.append(tilt(enhancement.samples[0]) - tilt(wave))
            assert enhancement.scorer.after < enhancement.scorer.before
    assert len(changes) >= 4
    assert left >= 1
    assert np.mean(changes) > 0.3
    assert np.mean(np.array(changes) > 0) >= 0.8


def test_card_describes_listener_data(preference_model: Model) -> None:
    card = preference_model.card.ears
    assert card is not None
    assert (card.comparisons, card.recordings, card.groups) == (600, 48, 48)
    assert card.learnt_from + card.held_out < 600  # what joins both sides teaches neither
    assert card.agreement_interval[0] <= card.agreement <= card.agreement_interval[1]
    assert card.agreement > 0.7
    assert preference_model.card.prior is None
    card_text = dict(card_lines(preference_model))
    assert card_text["prior"][0].startswith("none: learnt from listeners alone")
    assert "600 comparisons" in card_text["ears"][0]
    assert "agrees with" in card_markdown(preference_model)
    assert json.loads(preference_model.card.model_dump_json())["ears"]["comparisons"] == 600


def test_priors_are_refused_without_folders(
    preference_model: Model, takes: Callable[..., list[Wave]]
) -> None:
    (wave,) = takes(1, 9_000)
    kinds: tuple[PriorKind, ...] = ("static", "neighbours", "network")
    for kind in kinds:
        settings = EnhanceSettings().replace(prior=dict(kind=kind), force=True)
        with pytest.raises(ModelError, match="learnt from listeners alone"):
            list(enhance_array(wave[None], RATE, preference_model, settings))
    chosen = EnhanceSettings().replace(search=dict(steps=0), force=True)
    *_, enhancement = enhance_array(wave[None], RATE, preference_model, chosen)
    assert isinstance(enhancement, Enhancement)
    assert enhancement.mask.largest_db == 0  # explicit settings are not adapted
    used = enhancement.settings
    assert (used.search.steps, used.prior.kind) == (0, "none")
    assert (used.search.score, used.render.max_gain_db) == (1.0, PREFERENCE_MAX_GAIN_DB)


def test_search_around_pinned_note_works_without_priors(
    preference_model: Model, takes: Callable[..., list[Wave]]
) -> None:
    """A new search around a pinned note follows the scorer alone, like the first one."""
    settings = EnhanceSettings().replace(search=dict(steps=4), force=True)
    tried = (
        (wave, [*enhance_array(wave[None], RATE, preference_model, settings)][-1]) for wave in takes(6, 7_000)
    )
    wave, last = next(item for item in tried if isinstance(item[1], Enhancement) and item[1].steps)
    assert isinstance(last, Enhancement)
    note = Note(id="n", seconds=1.5, hz=1_000.0, width_s=2.0, height_hz=800.0, gain_db=6.0, pinned=True)
    *_, new = search_around_pins(
        wave[None], RATE, preference_model, [last.mask], (note,), settings, last.certificate
    )
    assert isinstance(new, Enhancement)
    assert (new.prior, new.settings.prior.kind) == ("none", "none")
    seconds = np.array([1.5])
    after_db, before_db = (
        item.gain_at(np.array([1_000.0]), seconds).item() for item in (new.mask, last.mask)
    )
    assert after_db == pytest.approx(before_db, abs=0.15)
    edit = Edit(notes=(note,))
    whole = compose_mask(shape_for_edit(new.mask, edit), edit, 30)
    assert whole.gain_at(np.array([1_000.0]), seconds).item() - before_db == pytest.approx(6, abs=0.2)
    assert np.isfinite(new.samples).all()


def load_answers(folder: Path, bad: BadRecordings | None = None) -> preferences.ListenerAnswers:
    loading = preferences.load_listener_answers(folder / "answers.csv", None, SMALL, bad)
    while True:
        try:
            next(loading)
        except StopIteration as end:
            answers: preferences.ListenerAnswers = end.value
            return answers


def test_recording_that_is_bad_for_a_folder_keeps_its_answers(answers_folder: Path) -> None:
    """Too short an excerpt of a recording, for example, is no fault of the answers about all of it."""
    bad = BadRecordings(skip=True)
    tables = preferences.read_answer_tables(answers_folder / "answers.csv", None, SMALL.training)
    bad.add(min(tables.groups), AudioError("the excerpt is silent"))
    actual, expected = load_answers(answers_folder, bad).data, load_answers(answers_folder).data
    assert actual.groups == expected.groups
    assert actual.better.tolist() == expected.better.tolist()


def test_held_out_groups_are_not_trained_on(answers_folder: Path) -> None:
    answered = load_answers(answers_folder)
    for seed in range(3):
        train, held_out = preferences.hold_out_listener_groups(answered.data, 0.2, seed)
        assert not set(train.groups) & set(held_out.groups)
        assert len(held_out.groups) == 10
        assert len(held_out.better) >= 2


def test_ratings_alone_train_a_model(answers_folder: Path, takes: Callable[..., list[Wave]]) -> None:
    *_, model = pipeline.train_model(None, None, TINY, ratings=answers_folder / "ratings.csv")
    assert isinstance(model, Model)
    assert model.card.ears is not None
    assert model.card.ears.ratings == 48
    unseen = takes(20, 6_000)
    scores = [score_array(wave[None], RATE, model).scorer for wave in unseen]
    assert kendalltau(-np.array(scores), [tilt(wave) for wave in unseen]).statistic >= 0.7


@pytest.mark.usefixtures("fitted_correction")
def test_folders_and_listeners_train_one_model(
    answers_folder: Path, training_folders: Any, small: Callable[..., ModelSettings]
) -> None:
    *_, model = pipeline.train_model(
        training_folders.reference,
        training_folders.source,
        small(),
        preferences=answers_folder / "answers.csv",
        ratings=answers_folder / "ratings.csv",
    )
    assert isinstance(model, Model)
    assert model.card.ears is not None
    assert (model.card.ears.comparisons, model.card.ears.ratings) == (600, 48)
    assert model.card.prior is not None
    assert "ears" in dict(card_lines(model))


def test_too_few_answers_are_refused(answers_folder: Path, tmp_path: Path) -> None:
    lines = (answers_folder / "answers.csv").read_text().splitlines()
    few = answers_folder / "few.csv"
    few.write_text("\n".join(lines[:20]) + "\n")
    with pytest.raises(FolderError, match="19 comparisons; training needs 30"):
        list(pipeline.train_model(None, None, SMALL, preferences=few))
    one = answers_folder / "one.csv"
    one.write_text("preferred,other,group\n" + "".join(f"{item},same\n" for item in lines[1:60]))
    with pytest.raises(FolderError, match="of 1 pieces; training needs 4"):
        list(pipeline.train_model(None, None, SMALL, preferences=one))
