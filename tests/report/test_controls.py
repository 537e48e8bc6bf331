"""Both arms with other schedules and other scales of latents."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image
from synthetic import profile_grid

from study import paths
from study.config import load_grid
from study.report.controls import scaling_table, schedule_table
from study.report.curves import convergence
from study.report.names import controls
from study.report.results import instances
from study.report.table import table_rows, without_schedules

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
    default, *others, best = table.numbers
    assert default["generator"] == "sit"
    assert [row["generator"] for row in others][:2] == ["sit_shift_50", "sit_shift_200"]
    assert len(others) == 8
    assert default[f"{METRIC}_gain"] == pytest.approx(0.2, abs=1e-3)
    assert others[0][f"{METRIC}_gain"] == pytest.approx(0.3, abs=1e-3)
    assert (best["best_plain"], best["best_eq"]) == ("sit_rate_200", "sit_shift_50")
    assert best[f"{METRIC}_plain"] == pytest.approx(7.505)
    assert best[f"{METRIC}_gain"] == pytest.approx(1 - 7 / 7.5, abs=1e-3)
    assert best[f"{METRIC}_gain_n"] == 2
    shown = table.shown[-1]["Schedule"]
    assert shown == "best of 9 (`plain`: 2 times the rate; `eq`: time shift 0.5)"


def test_the_default_is_taken_on_the_seeds_that_others_have() -> None:
    study, results = lab(eq_sit=8.0)
    of_default = schedule_table(study, results).numbers[0]
    # Of five seeds, levels rise by 0.01 a seed.
    assert (of_default["seeds"], of_default[f"{METRIC}_plain"]) == ("0 1", pytest.approx(10.005))
    none = pd.DataFrame(results[~results["generator"].str.match("sit_(shift|rate)")])
    table = schedule_table(study, none)
    assert table.numbers[0]["seeds"] == "0 1 2 3 4"
    assert {row["Seeds"] for row in table.shown[1:]} == {"not run"}


def test_a_schedule_without_a_pair_has_no_gain_and_there_is_no_best_yet() -> None:
    study, results = lab()
    left = (results["generator"] == "sit_shift_50_rate_50") & (results["arm"] == "plain")
    table = schedule_table(study, pd.DataFrame(results[~left]))
    gains = {row["Schedule"]: row["Gain, FD in-domain 10k"] for row in table.shown}
    assert gains.pop("time shift 0.5, 0.5 times the rate") == "not run"
    assert gains.pop("best of 9") == "not run"
    assert "not run" not in gains.values()


def test_a_schedule_with_one_seed_limits_the_choice_to_it() -> None:
    study, results = lab(eq_sit_rate_50=7.0)
    left = (results["generator"] == "sit_rate_50") & (results["seed"] == 1)
    table = schedule_table(study, pd.DataFrame(results[~left]))
    seeds = {row["Schedule"]: row["Seeds"] for row in table.shown}
    assert seeds["default"] == "0, 1"
    assert seeds["0.5 times the rate"] == "0"
    assert table.numbers[-1]["seeds"] == "0"
    assert table.numbers[-1]["best_eq"] == "sit_rate_50"


def test_scalings_stand_beside_each_other_on_equal_seeds() -> None:
    study, results = lab(eq_sit=8.0, eq_dit=7.0)
    fixed = (results["scaling"] == "fixed") & (results["arm"] == "eq")
    results.loc[fixed, "value"] = 9.0
    results.loc[results["autoencoder"] != "taesd", "value"] = 1.0
    table = scaling_table(study, results)
    rows = {(row["Generator"], row["Scaling"]): row for row in table.shown}
    assert list(rows) == [
        *(("SiT", "standardised"), ("SiT", "fixed")),
        *(("DiT", "standardised"), ("DiT", "fixed")),
    ]
    assert {(row["Autoencoder"], row["Seeds"]) for row in rows.values()} == {("taesd", "0, 1")}
    gains = [row[f"{METRIC}_gain"] for row in table.numbers]
    assert gains == pytest.approx([0.2, 0.1, 0.3, 0.1], abs=1e-3)


def test_the_second_extractor_has_a_gain_of_its_own() -> None:
    study, results = lab(eq_sit=8.0)
    second = results.assign(metric=f"{METRIC}_self_supervised", value=5.0)
    table = scaling_table(study, pd.concat([results, second]))
    assert table.shown[0]["Gain, FD in-domain 10k"].startswith("+20.0 %")
    assert table.shown[0]["Gain, FD in-domain self-supervised 10k"].startswith("+0.0 %")


def test_a_grid_without_other_schedules_has_no_such_table() -> None:
    assert not schedule_table(profile_grid("laptop"), lab()[1]).shown
    assert not scaling_table(profile_grid("laptop"), lab()[1]).shown


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


def test_what_the_second_extractor_has_not_measured_is_told() -> None:
    study, results = lab(eq_sit=8.0)
    second = results.assign(metric=f"{METRIC}_self_supervised", value=5.0)
    fixed, dit = second["scaling"] == "fixed", second["generator"] == "dit"
    kept = pd.DataFrame(second[~(fixed & ((second["seed"] == 1) | dit))])
    table = scaling_table(study, pd.concat([results, kept]))
    gains = [row["Gain, FD in-domain self-supervised 10k"] for row in table.shown]
    assert gains[0].startswith("+0.0 % [")
    assert gains[1] == "+0.0 % (n = 1, no interval)"
    assert gains[3] == "not measured"


def test_what_ran_without_its_default_is_shown() -> None:
    study, results = lab(eq_sit=8.0)
    usual = (results["scaling"] == "standardised") & (results["generator"] == "sit")
    found = pd.DataFrame(results[~usual])
    default, fixed = scaling_table(study, found).shown[:2]
    assert (default["Seeds"], fixed["Seeds"]) == ("not run", "0, 1")
    rows = {row["Schedule"]: row["Seeds"] for row in schedule_table(study, found).shown}
    assert (rows["default"], rows["time shift 2"]) == ("not run", "0, 1")


def test_the_default_stands_first() -> None:
    study, results = lab()
    cells = dict(reversed(study["evaluate_generator"].items()))
    assert (
        schedule_table(study | {"evaluate_generator": cells}, results).shown[0]["Schedule"]
        == "default"
    )


def test_a_distance_of_zero_has_no_gain() -> None:
    study, results = lab()
    results.loc[results["scaling"] == "fixed", "value"] = 0.0
    assert scaling_table(study, results).shown[1]["Gain, FD in-domain 10k"] == "not measured"


def test_the_usual_scaling_goes_without_saying() -> None:
    rows = table_rows(lab()[0], "evaluate_generator")
    titles = {row.title(rows) for row in rows if row.choices["autoencoder"] == "taesd"}
    assert {"SiT, taesd", "SiT, taesd, fixed", "DiT", "DiT, fixed"} <= titles


def test_figures_have_no_panel_of_each_schedule() -> None:
    rows = table_rows(lab()[0], "evaluate_generator")
    drawn = {row.choices["generator"] for row in without_schedules(rows)}
    assert drawn == {"sit", "dit", "repa", "maskgit", "sit_steps_400"}
    others = [row for row in rows if row.choices["generator"] == "sit_rate_50"]
    assert without_schedules(others) == others


def test_the_curves_have_no_panel_of_each_schedule(tmp_path: Path) -> None:
    study, results = lab()
    results = results.assign(images_seen=results["step"] * 512, low=None, high=None)
    sizes = []
    for kept in (results, results[~results["generator"].str.match("sit_(shift|rate)")]):
        convergence(study, pd.DataFrame(kept), tmp_path / "convergence")
        with Image.open(tmp_path / "convergence.png") as picture:
            sizes.append(picture.size)
    assert sizes[0] == sizes[1]
