"""What DVC shows of the smoke run: metrics, plots, differences of parameters, a trial."""

import json

import pytest
from clones import Clone, run_stages
from test_smoke import edited

CELL = "smoke-shapes-kl_small-{arm}-0-sit-standardised"


def test_metrics_name_the_arms_and_hold_numbers_alone(smoke: Clone):
    files = sorted((smoke.root / "reports/smoke/metrics").glob("*/*-scores.yaml"))
    names = [str(file.relative_to(smoke.root)) for file in files]
    shown = json.loads(smoke.run("python", "-m", "dvc", "metrics", "show", "--json", *names))
    shown = shown[""]["data"]
    folder = "reports/smoke/metrics/evaluate_generator"
    for arm in ("plain", "eq"):
        values = shown[f"{folder}/{CELL.format(arm=arm)}-scores.yaml"]["data"]
        assert values["fd_in_domain"] > 0
    every = [value for file in shown.values() for value in file["data"].values()]
    assert len(shown) == 8
    assert all(isinstance(value, int | float) for value in every)


def test_plots_have_a_page_with_the_curve_of_every_generator(smoke: Clone):
    folder = smoke.root.parent / "plots"
    smoke.run("python", "-m", "dvc", "plots", "show", "--out", str(folder))
    page = (folder / "index.html").read_text()
    for arm in ("plain", "eq"):
        assert f"train_generator/{CELL.format(arm=arm)}.csv" in page


def test_a_changed_parameter_is_the_only_difference(smoke: Clone):
    file = smoke.root / "params/generator/sit.yaml"
    with edited(file, "path: linear", "path: gvp"):
        text = smoke.run("python", "-m", "dvc", "params", "diff", "--json", "HEAD")
    changed = json.loads(text).get("params/generator/sit.yaml")
    assert changed == {"path": {"old": "linear", "new": "gvp"}}


@pytest.mark.slow
def test_a_trial_changes_one_parameter_and_runs_what_depends_on_it(clone: Clone):
    clone.use("smoke")
    setting = "params/profile/smoke.yaml:train_generator.steps=6"
    target = f"train_generator@{CELL.format(arm='eq')}"
    log = clone.run("python", "-m", "dvc", "exp", "run", "-S", setting, target)
    assert target in run_stages(log)
    listed = clone.run("python", "-m", "dvc", "exp", "list", "--name-only")
    assert listed.strip()
    index = next((clone.root / "outputs/smoke/train_generator").iterdir()) / "index.json"
    assert json.loads(index.read_text())["checkpoints"][-1]["step"] == 6
