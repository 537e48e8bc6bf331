"""The protocol block under a table."""

from study.report.protocol import Cells, protocol_lines


def cells(**values: str) -> Cells:
    return {
        ("evaluate_generator", name): {"cell": {"scaling": name}, "protocol": {"entry": value}}
        for name, value in values.items()
    }


def test_who_has_which_value_is_told() -> None:
    found = protocol_lines(cells(standardised="a", fixed="b"), "evaluate_generator")
    assert found == ["- entry: a (standardised); b (fixed)"]


def test_a_value_that_is_the_choice_itself_is_told_once() -> None:
    own = cells(standardised="standardised", fixed="fixed")
    assert protocol_lines(own, "evaluate_generator") == ["- entry: standardised, fixed"]
