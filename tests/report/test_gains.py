from pathlib import Path
from typing import Any

import pytest
from synthetic import grid, record, write_instance

from study.config import Cell
from study.report.gains import gains_table
from study.report.results import collect
from study.statistics import paired_gain

MAIN, SECOND = "fd_in_domain", "fd_in_domain_self_supervised"
RATIOS = {MAIN: {150: 0.5, 300: 0.8, 600: 1.1}, SECOND: {600: 0.9}}
"""Distance of `eq` over that of `plain` by step, for the first seed."""


def distance(arm: str, seed: int, metric: str, step: int) -> float:
    """Every seed's `eq` is by its number of hundredths farther than the first one's."""
    ratio = RATIOS[metric][step] + 0.01 * seed if arm == "eq" else 1
    return (10 + seed) * ratio


def plan_of(own: dict[str, list[int]], longer: int = 1) -> dict[str, Any]:
    """Results of SiT, of seeds that ran of each arm; its steps are so many times as many."""
    plan = grid([0, 1, 2])
    for instance, choices in plan["evaluate_generator"].items():
        cell = Cell(**choices)
        arm, seed = str(cell.arm), cell.seed or 0
        if cell.generator == "sit" and seed in own[arm]:
            rows = [
                record(metric, distance(arm, seed, metric, step), 1000) | {"step": longer * step}
                for metric, ratios in RATIOS.items()
                for step in ratios
            ]
            write_instance("evaluate_generator", instance, cell, rows)
    return plan


def sit(root: Path, plan: dict[str, Any]) -> list[tuple[dict[str, str], dict[str, Any]]]:
    table = gains_table(plan, collect(plan, root))
    rows = zip(table.shown, table.numbers, strict=True)
    return [(shown, numbers) for shown, numbers in rows if numbers["generator"] == "sit"]


@pytest.mark.parametrize("longer", [1, 4])
def test_a_gain_that_turns_is_seen_at_every_checkpoint(root: Path, longer: int) -> None:
    rows = sit(root, plan_of({"plain": [0, 1, 2], "eq": [0, 1, 2]}, longer))
    assert [numbers["metric"] for _, numbers in rows] == [MAIN, SECOND]
    for _, numbers in rows:
        metric = numbers["metric"]
        for step in RATIOS[metric]:
            pairs = [[distance(arm, s, metric, step) for s in range(3)] for arm in ("eq", "plain")]
            names = (f"gain_{step / 600:g}{end}" for end in ("", "_low", "_high", "_n"))
            assert [numbers[name] for name in names] == pytest.approx(list(paired_gain(*pairs)))
    (main, _), (second, _) = rows
    assert main["After 0.25"].startswith("+49.0 % [")
    assert main["After 1"].startswith("−11.0 % [")
    assert (main["Steps"], main["Seeds"]) == (f"{600 * longer:,}", "3")
    assert main["Distance"] == "FD in-domain 1k"
    assert second["After 0.25"] == "–"
    assert second["After 1"].startswith("+9.0 % [")


def test_only_seeds_of_both_arms_count(root: Path) -> None:
    (_, numbers), _ = sit(root, plan_of({"plain": [0, 1], "eq": [1, 2]}))
    assert (numbers["gain_1_n"], numbers["gain_1_low"]) == (1, None)
    assert numbers["gain_1"] == pytest.approx(1 - (RATIOS[MAIN][600] + 0.01))


def test_without_a_pair_an_arm_is_not_run(root: Path) -> None:
    ((shown, numbers),) = sit(root, plan_of({"plain": [0], "eq": [1]}))
    assert (shown["Seeds"], shown["Steps"], shown["After 1"]) == ("not run",) * 3
    assert numbers["gain_1"] is None
