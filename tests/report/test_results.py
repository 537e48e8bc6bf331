import csv
import json
import math
from pathlib import Path
from typing import Any

import pytest
from synthetic import grid, record, write_instance, write_tree

from study.config import Cell, ConfigError
from study.report.results import COLUMNS, collect, costs, not_run, summarise, where, write_csv


@pytest.fixture
def reference(root: Path) -> tuple[dict[str, Any], Path]:
    """A grid of one instance, and its metrics file."""
    cell = Cell(profile="laptop", data="shapes")
    path = write_instance("reference_statistics", "laptop-shapes", cell, [record("fd", 1.0)])
    grid = {"profile": "laptop", "reference_statistics": {"laptop-shapes": {"data": "shapes"}}}
    return grid, path


def test_results_equal_the_metrics_files(root: Path):
    study = grid([0])
    write_tree(study)
    results = collect(study, root)
    assert tuple(results.columns) == COLUMNS
    written = [
        (content["stage"], row["value"])
        for path in root.glob("*/*.json")
        for content in [json.loads(path.read_text())]
        for row in content["records"]
    ]
    assert sorted(written) == sorted(zip(results["stage"], results["value"], strict=True))
    assert {"accuracy_extractor", "accuracy_target"} <= set(results["metric"])
    assert str(results["step"].dtype) == "Int64"


def test_only_cells_of_the_grid_are_read(root: Path):
    write_tree(grid([0, 1]))
    assert set(collect(grid([1]), root)["seed"].dropna()) == {1}


def test_missing_cells_are_listed(root: Path):
    study = grid([0])
    write_tree(study)
    instance = next(iter(study["evaluate_generator"]))
    (root / "evaluate_generator" / f"{instance}.json").unlink()
    assert not_run(study, root) == [("evaluate_generator", instance)]
    assert len(not_run(study, root / "elsewhere")) == 32


def test_equal_metrics_give_equal_bytes_that_read_back(root: Path, tmp_path: Path):
    study = grid([0, 1])
    write_tree(study)
    write_csv(collect(study, root), tmp_path / "a.csv")
    turned = {
        stage: dict(reversed(cells.items())) if isinstance(cells, dict) else cells
        for stage, cells in study.items()
    }
    write_csv(collect(turned, root), tmp_path / "b.csv")
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    with (tmp_path / "a.csv").open() as file:
        again = [float(row["value"]) for row in csv.DictReader(file)]
    assert again == collect(study, root)["value"].tolist()


@pytest.mark.parametrize("value", [math.nan, math.inf, None, "1"])
def test_a_value_that_is_no_finite_number_is_refused(
    reference: tuple[dict[str, Any], Path], root: Path, value: object
):
    study, path = reference
    content = json.loads(path.read_text())
    content["records"][0]["value"] = value
    path.write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=r"laptop-shapes\.json: fd\.value = .*: must be a finite"):
        collect(study, root)


def test_a_file_under_another_name_is_refused(reference: tuple[dict[str, Any], Path], root: Path):
    study, path = reference
    path.write_text(path.read_text().replace('"laptop-shapes"', '"laptop-other"'))
    with pytest.raises(ConfigError, match="holds the metrics of reference_statistics/laptop-other"):
        collect(study, root)


def test_summary_has_an_interval_only_over_seeds(root: Path):
    write_tree(grid([0, 1, 2]))
    one, three = (summarise(collect(grid(seeds), root)) for seeds in ([0], [0, 1, 2]))
    assert all(map(math.isnan, one["low"]))
    assert all(map(math.isnan, one["high"]))
    assert "seed" not in three
    trained = where(three, "stage", "evaluate_generator")
    assert set(trained["n_seeds"]) == {3}
    ends = where(where(trained, "metric", "fd_in_domain"), "step", 600)
    bounds = zip(ends["low"], ends["mean"], ends["high"], strict=True)
    assert all(low < mean < high for low, mean, high in bounds)


def test_summary_is_the_mean_over_seeds(root: Path):
    write_tree(grid([0, 1]))
    results = collect(grid([0, 1]), root)
    key = (results["metric"] == "psnr_db") & (results["arm"] == "eq")
    values = results[key & (results["autoencoder"] == "small_kl")]["value"]
    summary = summarise(results)
    row = (summary["metric"] == "psnr_db") & (summary["arm"] == "eq")
    mean = summary[row & (summary["autoencoder"] == "small_kl")]["mean"]
    assert len(values) == 2
    assert mean.tolist() == [pytest.approx(values.mean())]


def test_costs_are_no_results(root: Path):
    study = grid([0])
    write_tree(study)
    table = costs(study, root)
    assert list(table.columns) == [
        *("stage", "instance", "seconds"),
        *("gflop_per_image", "images_per_second", "training_seconds"),
        *("gpu", "torch", "commit", "finished"),
    ]
    assert len(table) == 32
    assert "seconds" not in set(collect(study, root)["metric"])


def test_nothing_run_gives_an_empty_table(root: Path):
    results = collect(grid([0]), root)
    assert results.empty
    assert summarise(results).empty
    assert costs(grid([0]), root).empty
