import json
from pathlib import Path
from typing import Any

import pytest
from synthetic import grid, record, write_instance, write_tree

from study import paths
from study.config import Cell
from study.report.results import collect, read
from study.report.speed import Costs, Spent, speed_up_table
from study.statistics import Reach

STEPS = [75, 150, 300, 600]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    return tmp_path / "reports" / "laptop" / "metrics"


def plan_of(factor: float, seeds: int = 3) -> dict[str, Any]:
    """Results of SiT in which `eq` is `factor` times as fast, seeds shifted alike."""
    plan = grid(list(range(seeds)))
    write_tree(plan)
    for instance, choices in plan["evaluate_generator"].items():
        cell = Cell(**choices)
        if cell.generator == "sit":
            speed = factor if cell.arm == "eq" else 1
            shift = 1 + 0.001 * (cell.seed or 0)
            values = [shift * 100 * (speed * step) ** -0.5 for step in STEPS]
            rows = [
                record("fd_in_domain", value, 1000) | {"step": step}
                for step, value in zip(STEPS, values, strict=True)
            ]
            write_instance("evaluate_generator", instance, cell, rows)
    return plan


def rows_of(plan: dict[str, Any], root: Path) -> dict[float, tuple[dict[str, str], dict[str, Any]]]:
    table = speed_up_table(plan, collect(plan, root), read(plan, root))
    rows = zip(table.shown, table.numbers, strict=True)
    return {n["fraction"]: (s, n) for s, n in rows if n["generator"] == "sit"}


def test_the_factor_is_found_at_every_threshold_that_curves_cross(root: Path) -> None:
    rows = rows_of(plan_of(1.8), root)
    for fraction in (0.25, 0.5):
        shown, numbers = rows[fraction]
        assert numbers["steps"] == pytest.approx(1.8, rel=0.01)
        assert numbers["steps_low"] <= numbers["steps"] <= numbers["steps_high"]
        assert shown["Steps"].startswith("1.8× [")
        assert shown["FD in-domain 1k of plain after"] == f"{fraction:g} of its run"
    # Seeds above the mean never reach what plain has in the mean at the end.
    shown, numbers = rows[1.0]
    assert numbers["steps_bound"] == "at least"
    assert shown["Steps"] == "≥ 1.8×"
    assert len(numbers["steps_seeds"].split()) == 3


def test_a_curve_that_never_gets_there_is_an_upper_bound(root: Path) -> None:
    shown, numbers = rows_of(plan_of(0.3), root)[0.5]
    assert (numbers["steps_bound"], numbers["steps_low"]) == ("at most", None)
    assert shown["Steps"].startswith("≤ 0.5")


def test_a_threshold_before_the_first_checkpoint_is_none(root: Path) -> None:
    plan = plan_of(2)
    for path in (root / "evaluate_generator").glob("*sit*.json"):
        content = json.loads(path.read_text())
        content["records"] = content["records"][2:]
        path.write_text(json.dumps(content))
    shown, numbers = rows_of(plan, root)[0.25]
    assert numbers["threshold"] is None
    assert shown["Steps"] == numbers["steps"] == "no checkpoint so early"


def test_what_has_not_run_is_not_run(root: Path) -> None:
    plan = plan_of(2)
    for path in (root / "evaluate_generator").glob("*eq-*-sit*.json"):
        path.unlink()
    assert {shown["Steps"] for shown, _ in rows_of(plan, root).values()} == {"not run"}


def test_costs_count_the_autoencoder_where_they_say_so(root: Path) -> None:
    plan = plan_of(2)
    cells = read(plan, root)
    row = {"data": "shapes", "autoencoder": "small_kl", "arm": "eq"}
    row |= {"generator": "sit", "scaling": "standardised"}
    costs = Costs(cells)
    assert costs.of(row, 0, "steps") == Spent(1, 0, 0)
    assert costs.of(row, 0, "images") == Spent(64, 600 * 64, 0)
    # Not recorded for generators, so that nothing is said.
    assert costs.of(row, 0, "gflop") is None
    seconds = costs.of(row, 0, "seconds")
    assert seconds is not None
    own = cells["train_generator", "laptop-shapes-small_kl-eq-0-sit-standardised"]["cost"]
    assert seconds == pytest.approx(Spent(own["seconds"] / 600, 90.0, 0))
    assert costs.of(row | {"arm": "pretrained"}, 0, "images") is None


def test_work_is_counted_once_it_is_recorded(root: Path) -> None:
    plan = plan_of(2)
    for path in (root / "train_generator").glob("*.json"):
        content = json.loads(path.read_text())
        content["cost"] |= {"gflop_per_image": 3.0, "training_seconds": 60.0}
        path.write_text(json.dumps(content))
    shown, numbers = rows_of(plan, root)[0.5]
    assert numbers["gflop"] == pytest.approx(numbers["steps"])
    assert shown["FLOPs"] == shown["Steps"]
    # Fine-tuning of both arms costs the same here, which brings the factor nearer to 1.
    assert 1 < numbers["gflop_with_autoencoder"] < numbers["gflop"]
    assert 1 < numbers["seconds_with_fine_tuning"] < numbers["seconds"]


@pytest.mark.parametrize(
    ("counted", "amount"), [("", 20.0), ("_with_fine_tuning", 27.0), ("_with_autoencoder", 30.0)]
)
def test_a_moment_costs_its_steps_and_what_went_before(counted: str, amount: float) -> None:
    assert Spent(2, 7, 3).at(Reach(10, "after"), counted) == (amount, "after")
