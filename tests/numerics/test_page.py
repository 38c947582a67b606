"""The documentation promises what the laws ask for, no more and no less."""

from importlib import import_module
from pathlib import Path

from campaigns.harness.numerics.docs_table import fill_table, format_figure, format_tolerance, read_rows
from campaigns.harness.numerics.law import Law

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "numerics.md"


def laws() -> dict[str, Law]:
    modules = (import_module(f"tests.numerics.{item.stem}") for item in HERE.glob("test_*.py"))
    result = (item for module in modules for item in vars(module).values() if hasattr(item, "law"))
    return {item.law.says: item.law for item in result}


def test_every_law_has_its_row_with_its_tolerance_and_a_figure_within() -> None:
    page = PAGE.read_text("utf-8")
    text = {says: (tolerance, figure) for says, tolerance, figure in read_rows(page)}
    assert {says: item[0] for says, item in text.items()} == {
        says: format_tolerance(item) for says, item in laws().items()
    }
    for says, law in laws().items():
        figure = text[says][1].split()[0]
        assert figure == "none" or float(figure) <= law.within, says


def test_filling_keeps_what_was_not_measured_again() -> None:
    both = {name: Law(name, 1e-6, "dB", float, {}, 1, 1) for name in ("one thing", "another")}
    page = "before\n<!-- numerics:begin -->\n<!-- numerics:end -->\nafter"
    once = fill_table(page, both, {"one thing": 2e-7, "another": 0.0})
    again = fill_table(once, both, {"another": 3.21e-5})
    assert read_rows(again)[0] == ("one thing", "1e-6 dB", "2e-7 dB")
    assert read_rows(again)[1] == ("another", "1e-6 dB", "3.2e-5 dB")
    assert read_rows(once)[1] == ("another", "1e-6 dB", "none")
    assert again.startswith("before")
    assert again.endswith("after")


def test_figures_are_short() -> None:
    assert [format_figure(item) for item in (0, 1.26e-7, 0.03, 0.0123, -75, -136.4, 1e-6)] == [
        "0", "1.3e-7", "0.03", "0.012", "-75", "-136", "1e-6",
    ]  # fmt: skip
