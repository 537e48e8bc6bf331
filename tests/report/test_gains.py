import math
from pathlib import Path
from typing import Any

import pytest
from synthetic import grid, record, write_instance, write_tree

from study import paths
from study.config import Cell
from study.report.gains import gains_table
from study.report.results import collect

RATIOS = {150: 0.5, 300: 0.8, 600: 1.1}
"""Distance of `eq` over that of `plain` by step."""


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    return tmp_path / "reports" / "laptop" / "metrics"


def plan_of(seeds: list[int], own: dict[str, list[int]]) -> dict[str, Any]:
    """Results of SiT with these ratios, of seeds that ran of each arm; the others' gains spread."""
    plan = grid(seeds)
    write_tree({stage: cells for stage, cells in plan.items() if stage != "evaluate_generator"})
    for instance, choices in plan["evaluate_generator"].items():
        cell = Cell(**choices)
        if cell.generator == "sit" and cell.seed in own[str(cell.arm)]:
            factors = RATIOS if cell.arm == "eq" else dict.fromkeys(RATIOS, 1.0)
            rows = [
                record("fd_in_domain", (10 + (cell.seed or 0)) * factor, 1000) | {"step": step}
                for step, factor in factors.items()
            ]
            write_instance("evaluate_generator", instance, cell, rows)
    return plan


def test_a_gain_that_turns_is_seen_at_every_checkpoint(root: Path) -> None:
    plan = plan_of([0, 1, 2], {"plain": [0, 1, 2], "eq": [0, 1, 2]})
    table = gains_table(plan, collect(plan, root))
    ((shown, numbers),) = zip(table.shown, table.numbers, strict=True)
    assert numbers["arm"] == "eq"
    for step, ratio in RATIOS.items():
        part = f"{step / 600:g}"
        assert numbers[f"gain_{part}"] == pytest.approx(1 - ratio)
        # The same ratio with every seed: an interval of no width.
        assert math.isclose(numbers[f"gain_{part}_low"], 1 - ratio, abs_tol=1e-9)
        assert numbers[f"gain_{part}_n"] == 3
    assert shown["At 0.25 of the run"] == "+50.0 % [+50.0, +50.0]"
    assert shown["At 1 of the run"] == "−10.0 % [−10.0, −10.0]"
    assert shown["Distance"] == "FD in-domain 1k"
    assert shown["Seeds"] == "3"


def test_only_seeds_of_both_arms_count(root: Path) -> None:
    plan = plan_of([0, 1], {"plain": [0, 1], "eq": [1]})
    (numbers,) = gains_table(plan, collect(plan, root)).numbers
    assert (numbers["gain_1_n"], numbers["gain_1_low"]) == (1, None)


def test_without_a_pair_there_is_no_table(root: Path) -> None:
    plan = plan_of([0, 1], {"plain": [0], "eq": [1]})
    table = gains_table(plan, collect(plan, root))
    assert (table.shown, table.notes) == ([], [])
