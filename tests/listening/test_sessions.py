from collections import Counter
from pathlib import Path

import numpy as np

from tonewood.listening import trial_order
from tonewood.listening.definition import ListeningTest

Made = tuple[ListeningTest, Path]


def larger(test: ListeningTest, excerpts: int = 30, each: int = 12) -> ListeningTest:
    """The same test over more excerpts, each of them a copy of the first."""
    own = [it for it in test.stimuli if it.excerpt == 0]
    stimuli = [it.model_copy(update={"excerpt": k}) for k in range(excerpts) for it in own]
    trials = [
        it.model_copy(update={"excerpt": k}) for k in range(excerpts) for it in test.trials if it.excerpt == 0
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


def test_subsets_are_balanced_over_listeners(made: dict[str, Made]) -> None:
    test = larger(made["pairs"][0])
    asked = Counter[int]()
    for number in range(25):
        own = trial_order.balanced_subset(test, number)
        assert len(set(own)) == len(own) == 12
        asked.update(own)
        assert max(asked.values()) - min(asked.get(t, 0) for t in range(30)) <= 1
    assert sum(asked.values()) == 300


def test_order_and_sides_come_from_the_seed_and_the_number(made: dict[str, Made]) -> None:
    test = larger(made["pairs"][0])
    first = trial_order.draw_screens(test, 0)
    assert first == trial_order.draw_screens(test, 0)
    assert first != trial_order.draw_screens(test, 1)
    assert first != trial_order.draw_screens(test.model_copy(update={"seed": 9}), 0)


def test_sides_are_balanced_and_repeats_are_turned(made: dict[str, Made]) -> None:
    test = larger(made["pairs"][0])
    for number in range(6):
        laid = trial_order.draw_screens(test, number)
        asked = [it for it in laid if it.stage == "trial" and it.repeat_of is None]
        left = Counter(it.stimuli[0].condition for it in asked)
        assert abs(left["plain"] - left["odd"]) <= 1
        again = [it for it in laid if it.repeat_of is not None]
        assert len(again) == 3
        for it in again:
            assert it.repeat_of is not None
            before = laid[it.repeat_of]
            assert before.trial == it.trial
            assert [s.condition for s in before.stimuli] == [s.condition for s in it.stimuli][::-1]


def test_abx_hides_either_equally_and_knows_which(made: dict[str, Made]) -> None:
    test = larger(made["abx"][0])
    right = Counter[str]()
    for number in range(20):
        for it in trial_order.draw_screens(test, number):
            if it.stage == "trial":
                a, b, x = it.stimuli
                assert it.correct_answer is not None
                assert {"A": a, "B": b}[it.correct_answer].condition == x.condition
                assert x.file not in (a.file, b.file)
                right[it.correct_answer] += 1
    assert abs(right["A"] - right["B"]) < 4 * np.sqrt(sum(right.values()))
    stages = [it.stage for it in trial_order.draw_screens(test, 0)]
    assert Counter(stages)["headphones"] == 6
    assert stages[0] == "volume"
    assert stages.index("training") < stages.index("trial")


def test_mushra_hides_the_reference_among_the_others(made: dict[str, Made]) -> None:
    test = made["mushra"][0]
    places = Counter[int]()
    for number in range(20):
        for it in trial_order.draw_screens(test, number):
            if it.stage == "trial":
                open_one, *rated = it.stimuli
                assert (open_one.label, open_one.condition) == ("reference", "good")
                names = [slot.condition for slot in rated]
                assert sorted(names) == sorted(test.conditions)
                assert "anchor 3.5 kHz" in names
                hidden = rated[names.index("good")]
                assert hidden.file != open_one.file
                places[names.index("good")] += 1
    assert len(places) == 5


def test_active_choice_asks_what_is_open(made: dict[str, Made]) -> None:
    test = made["pairs"][0].model_copy(update={"choice": "active"})
    open_ones = [it for it in trial_order.draw_screens(test, 0) if it.stage == "trial"]
    assert all(not it.stimuli for it in open_ones)
    heard = [0]
    screen = trial_order.next_adaptive_screen(test, 0, 5, np.zeros((2, 2)), Counter({0: 1}), heard)
    assert screen.trial in range(1, len(test.trials))
    again = trial_order.next_adaptive_screen(test, 0, 5, np.zeros((2, 2)), Counter({0: 1}), heard)
    assert again == screen
