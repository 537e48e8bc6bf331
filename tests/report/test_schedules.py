"""Default against default and best against best."""

from typing import Any

import pandas as pd
import pytest
from synthetic import profile_grid

from study import paths
from study.config import load_grid
from study.report.names import controls
from study.report.results import instances
from study.report.schedules import schedule_table

METRIC = "fd_in_domain"


def lab(**levels: float) -> tuple[dict[str, Any], pd.DataFrame]:
    """The whole plan of profile lab, and distances: a level for each arm and generator named."""
    study = profile_grid("lab")
    planned = study.pop("planned")
    study |= {stage: study[stage] | planned.get(stage, {}) for stage in planned}
    rows = [
        {
            **{"stage": stage, "metric": METRIC, "step": 4096, "n": 10_000, "data": cell.data},
            **{"autoencoder": cell.autoencoder, "arm": cell.arm, "scaling": cell.scaling},
            **{"generator": cell.generator, "seed": cell.seed},
            "value": levels.get(f"{cell.arm}_{cell.generator}", 10.0) + 0.01 * (cell.seed or 0),
        }
        for stage, _, cell in instances(study)
        if stage == "evaluate_generator"
    ]
    return study, pd.DataFrame(rows)


def test_each_arm_is_taken_at_its_best() -> None:
    study, results = lab(
        eq_sit=8.0, eq_sit_shift_50=7.0, plain_sit_rate_200=7.5, eq_sit_steps_400=1
    )
    table = schedule_table(study, results)
    default, best = table.numbers
    assert (default["plain"], default["eq"]) == ("sit", "sit")
    assert default["gain"] == pytest.approx(0.2, abs=1e-3)
    assert (best["plain"], best["eq"]) == ("sit_rate_200", "sit_shift_50")
    assert best[f"{METRIC}_plain"] == pytest.approx(7.505)
    assert best["gain"] == pytest.approx(1 - 7 / 7.5, abs=1e-3)
    assert best["gain_n"] == default["gain_n"] == 2
    assert table.shown[1]["`eq`"] == "SiT, time shift 0.5"


def test_nothing_is_said_before_all_have_run() -> None:
    study, results = lab()
    left = (results["generator"] == "sit_shift_50_rate_50") & (results["arm"] == "plain")
    table = schedule_table(study, pd.DataFrame(results[~left]))
    assert [row["Gain"] for row in table.shown] == ["not run", "not run"]


def test_a_grid_without_other_schedules_has_no_such_table() -> None:
    assert not schedule_table(profile_grid("laptop"), lab()[1]).shown


def test_generators_of_one_objective_are_no_schedules_of_each_other() -> None:
    study, results = lab()
    both = {"repa": "repa", "sit_shift_50": "repa_dinov2"}
    kept = pd.DataFrame(results[results["generator"].isin(both)]).replace({"generator": both})
    cells = {
        name.replace("sit_shift_50", "repa_dinov2"): cell | {"generator": both[cell["generator"]]}
        for name, cell in study["evaluate_generator"].items()
        if cell["generator"] in both
    }
    assert not schedule_table(study | {"evaluate_generator": cells}, kept).shown


def test_controls_are_told_by_name() -> None:
    assert controls("sit") == controls("repa_dinov2") == {}
    assert controls("sit_shift_50_rate_200") == {"shift": 0.5, "rate": 2.0}
    for name in ("sit_shift_200", "sit_rate_50", "sit_steps_400"):
        content = load_grid(paths.PARAMS / "generator" / f"{name}.yaml")
        ((kind, factor),) = controls(name).items()
        fields = {"shift": "time_shift", "rate": "learning_rate_factor", "steps": "steps_factor"}
        assert content[fields[kind]] == factor
