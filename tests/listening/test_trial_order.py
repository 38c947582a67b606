from collections import Counter
from pathlib import Path

import numpy as np

from tonewood.listening import trial_order
from tonewood.listening.definition import ListeningTest

BuiltTest = tuple[ListeningTest, Path]


def larger(test: ListeningTest, excerpts: int = 30, each: int = 12) -> ListeningTest:
    """Return the same test with more excerpts, each a copy of the first."""
    group = [item for item in test.stimuli if item.excerpt == 0]
    stimuli = [item.model_copy(update={"excerpt": k}) for k in range(excerpts) for item in group]
    trials = [
        item.model_copy(update={"excerpt": k})
        for k in range(excerpts)
        for item in test.trials
        if item.excerpt == 0
    ]
    return test.model_copy(
        update={
            "stimuli": tuple(stimuli),
            "trials": tuple(trials),
            "excerpts": test.excerpts[:1] * excerpts,
            "per_listener": each,
            "repeats": 3,
        }
    )


def test_subsets_are_balanced_over_listeners(built_tests: dict[str, BuiltTest]) -> None:
    test = larger(built_tests["pairs"][0])
    counts = Counter[int]()
    for number in range(25):
        group = trial_order.balanced_subset(test, number)
        assert len(set(group)) == len(group) == 12
        counts.update(group)
        assert max(counts.values()) - min(counts.get(t, 0) for t in range(30)) <= 1
    assert sum(counts.values()) == 300


def test_order_and_sides_follow_from_seed_and_number(built_tests: dict[str, BuiltTest]) -> None:
    test = larger(built_tests["pairs"][0])
    first = trial_order.draw_screens(test, 0)
    assert first == trial_order.draw_screens(test, 0)
    assert first != trial_order.draw_screens(test, 1)
    assert first != trial_order.draw_screens(test.model_copy(update={"seed": 9}), 0)


def test_sides_are_balanced_and_swapped_in_repeats(built_tests: dict[str, BuiltTest]) -> None:
    test = larger(built_tests["pairs"][0])
    for number in range(6):
        screens = trial_order.draw_screens(test, number)
        trials = [screen for screen in screens if screen.stage == "trial" and screen.repeat_of is None]
        left = Counter(screen.stimuli[0].condition for screen in trials)
        assert abs(left["plain"] - left["odd"]) <= 1
        repeats = [screen for screen in screens if screen.repeat_of is not None]
        assert len(repeats) == 3
        for repeat in repeats:
            assert repeat.repeat_of is not None
            before = screens[repeat.repeat_of]
            assert before.trial == repeat.trial
            assert [s.condition for s in before.stimuli] == [s.condition for s in repeat.stimuli][::-1]


def test_abx_target_is_balanced_and_recorded(built_tests: dict[str, BuiltTest]) -> None:
    test = larger(built_tests["abx"][0])
    right = Counter[str]()
    for number in range(20):
        for item in trial_order.draw_screens(test, number):
            if item.stage == "trial":
                a, b, x = item.stimuli
                assert item.correct_answer is not None
                assert {"A": a, "B": b}[item.correct_answer].condition == x.condition
                assert x.file not in (a.file, b.file)
                right[item.correct_answer] += 1
    assert abs(right["A"] - right["B"]) < 4 * np.sqrt(sum(right.values()))
    stages = [item.stage for item in trial_order.draw_screens(test, 0)]
    assert Counter(stages)["headphones"] == 6
    assert stages[0] == "volume"
    assert stages.index("training") < stages.index("trial")


def test_mushra_hides_the_reference(built_tests: dict[str, BuiltTest]) -> None:
    test = built_tests["mushra"][0]
    places = Counter[int]()
    for number in range(20):
        for item in trial_order.draw_screens(test, number):
            if item.stage == "trial":
                reference, *rated = item.stimuli
                assert (reference.label, reference.condition) == ("reference", "good")
                names = [stimulus.condition for stimulus in rated]
                assert sorted(names) == sorted(test.conditions)
                assert "anchor 3.5 kHz" in names
                hidden = rated[names.index("good")]
                assert hidden.file != reference.file
                places[names.index("good")] += 1
    assert len(places) == 5


def test_active_choice_asks_most_uncertain_pair(built_tests: dict[str, BuiltTest]) -> None:
    test = built_tests["pairs"][0].model_copy(update={"choice": "active"})
    screens = [screen for screen in trial_order.draw_screens(test, 0) if screen.stage == "trial"]
    assert all(not screen.stimuli for screen in screens)
    past_trials = [0]
    screen = trial_order.next_adaptive_screen(test, 0, 5, np.zeros((2, 2)), Counter({0: 1}), past_trials)
    assert screen.trial in range(1, len(test.trials))
    again = trial_order.next_adaptive_screen(test, 0, 5, np.zeros((2, 2)), Counter({0: 1}), past_trials)
    assert again == screen
