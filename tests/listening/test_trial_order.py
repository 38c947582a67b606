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
    requests = Counter[int]()
    for number in range(25):
        group = trial_order.balanced_subset(test, number)
        assert len(set(group)) == len(group) == 12
        requests.update(group)
        assert max(requests.values()) - min(requests.get(t, 0) for t in range(30)) <= 1
    assert sum(requests.values()) == 300


def test_order_and_sides_follow_from_seed_and_number(built_tests: dict[str, BuiltTest]) -> None:
    test = larger(built_tests["pairs"][0])
    first = trial_order.draw_screens(test, 0)
    assert first == trial_order.draw_screens(test, 0)
    assert first != trial_order.draw_screens(test, 1)
    assert first != trial_order.draw_screens(test.model_copy(update={"seed": 9}), 0)


def test_sides_are_balanced_and_swapped_in_repeats(built_tests: dict[str, BuiltTest]) -> None:
    test = larger(built_tests["pairs"][0])
    for number in range(6):
        planned = trial_order.draw_screens(test, number)
        requests = [item for item in planned if item.stage == "trial" and item.repeat_of is None]
        left = Counter(item.stimuli[0].condition for item in requests)
        assert abs(left["plain"] - left["odd"]) <= 1
        again = [item for item in planned if item.repeat_of is not None]
        assert len(again) == 3
        for item in again:
            assert item.repeat_of is not None
            before = planned[item.repeat_of]
            assert before.trial == item.trial
            assert [s.condition for s in before.stimuli] == [s.condition for s in item.stimuli][::-1]


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
                open_one, *rated = item.stimuli
                assert (open_one.label, open_one.condition) == ("reference", "good")
                names = [slot.condition for slot in rated]
                assert sorted(names) == sorted(test.conditions)
                assert "anchor 3.5 kHz" in names
                hidden = rated[names.index("good")]
                assert hidden.file != open_one.file
                places[names.index("good")] += 1
    assert len(places) == 5


def test_active_choice_asks_most_uncertain_pair(built_tests: dict[str, BuiltTest]) -> None:
    test = built_tests["pairs"][0].model_copy(update={"choice": "active"})
    open_ones = [item for item in trial_order.draw_screens(test, 0) if item.stage == "trial"]
    assert all(not item.stimuli for item in open_ones)
    played_back = [0]
    screen = trial_order.next_adaptive_screen(test, 0, 5, np.zeros((2, 2)), Counter({0: 1}), played_back)
    assert screen.trial in range(1, len(test.trials))
    again = trial_order.next_adaptive_screen(test, 0, 5, np.zeros((2, 2)), Counter({0: 1}), played_back)
    assert again == screen
