import json
from pathlib import Path
from typing import Any

import pytest
from synthetic import grid, record, write_instance, write_tree

from study.config import Cell
from study.report.results import collect, read
from study.report.speed import COUNTED, Costs, Spent, speed_up_table
from study.statistics import Reach

STEPS = [75, 150, 300, 600]


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
    assert costs.of(row, 0, "gflop") == Spent(3.0 * 64, 30.0 * 600 * 64, 0)
    seconds = costs.of(row, 0, "seconds")
    own = cells["train_generator", "laptop-shapes-small_kl-eq-0-sit-standardised"]["cost"]
    assert seconds == Spent(pytest.approx(own["seconds"] / 600), 90.0, 0)  # type: ignore[arg-type]
    # No generator was trained on this arm, which trains nothing itself.
    assert costs.of(row | {"arm": "pretrained"}, 0, "images") == Spent(None, 0, 0)


def test_pre_training_is_counted_for_the_arm_that_trains_nothing_too(root: Path) -> None:
    plan = plan_of(2)
    cell = Cell(profile="laptop", data="shapes", autoencoder="small_kl", seed=0)
    choices = {"autoencoder": "small_kl", "data": "shapes", "seed": 0}
    plan["pretrain_autoencoder"] = {cell.instance: choices}
    write_instance("pretrain_autoencoder", cell.instance, cell, [])
    row = {"data": "shapes", "autoencoder": "small_kl", "arm": "pretrained"}
    row |= {"generator": "sit", "scaling": "standardised"}
    costs = Costs(read(plan, root))
    assert costs.of(row, 0, "images") == Spent(None, 0, 600 * 64)
    # It is the same for every seed.
    assert costs.of(row, 2, "images") == Spent(None, 0, 600 * 64)
    # Its work was not recorded.
    assert costs.of(row | {"arm": "eq"}, 0, "gflop") == Spent(3.0 * 64, 30.0 * 600 * 64, None)


def test_the_threshold_is_of_all_seeds_of_the_control(root: Path) -> None:
    plan = plan_of(2)
    whole = rows_of(plan, root)
    for path in (root / "evaluate_generator").glob("*eq-2-sit*.json"):
        path.unlink()
    fewer = rows_of(plan, root)
    for fraction, (_, numbers) in fewer.items():
        assert numbers["threshold"] == whole[fraction][1]["threshold"]
        assert len(str(numbers["steps_seeds"]).split()) == 2


def test_what_is_not_recorded_leaves_the_other_costs_alone(root: Path) -> None:
    plan = plan_of(2)
    for path in (root / "finetune_autoencoder").glob("*small_kl-eq-1.json"):
        content = json.loads(path.read_text())
        del content["cost"]["gflop_per_image"]
        path.write_text(json.dumps(content))
    shown, numbers = rows_of(plan, root)[0.5]
    assert numbers["gflop"] == pytest.approx(2, rel=0.01)
    assert numbers["gflop_with_fine_tuning"] == "not recorded"
    assert shown["FLOPs + autoencoder"] == "not recorded"
    assert numbers["images_with_autoencoder"] == numbers["images_with_fine_tuning"]


def test_fine_tuning_of_both_arms_brings_the_factor_nearer_to_1(root: Path) -> None:
    plan = plan_of(2)
    for path in (root / "train_generator").glob("*.json"):
        content = json.loads(path.read_text())
        content["cost"] |= {"training_seconds": 60.0}
        path.write_text(json.dumps(content))
    shown, numbers = rows_of(plan, root)[0.5]
    assert numbers["gflop"] == pytest.approx(numbers["steps"])
    assert shown["FLOPs"] == shown["Steps"]
    assert numbers["images"] == pytest.approx(numbers["steps"])
    for unit in ("images", "gflop", "seconds"):
        assert 0 < numbers[f"{unit}_with_autoencoder"] < numbers[unit]
    assert 1 < numbers["seconds_with_fine_tuning"] < numbers["seconds"]


@pytest.mark.parametrize(
    ("counted", "amount"), [("", 20.0), ("_with_fine_tuning", 27.0), ("_with_autoencoder", 30.0)]
)
def test_a_moment_costs_its_steps_and_what_went_before(counted: str, amount: float) -> None:
    assert Spent(2, 7, 3).at(Reach(10, "after"), counted) == (amount, "after")


@pytest.mark.parametrize(
    ("spent", "known"),
    [
        (Spent(None, 7, 3), []),
        (Spent(2, None, 3), [""]),
        (Spent(2, 7, None), ["", "_with_fine_tuning"]),
    ],
)
def test_a_part_that_is_not_recorded_is_missed_where_it_counts(
    spent: Spent, known: list[str]
) -> None:
    assert [counted for counted in COUNTED if spent.at(Reach(10), counted)] == known
