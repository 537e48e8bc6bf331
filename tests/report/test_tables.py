import csv
import json
from pathlib import Path
from statistics import fmean
from typing import Any

import pandas as pd
import pytest
from synthetic import grid, write_tree

from study.config import AlignmentTarget, REPAConfig, choices, generator_group
from study.report.names import count, generator, label, objective
from study.report.results import collect, costs, where
from study.report.table import Table
from study.report.tables import autoencoder_table, cost_table, generator_table, quality_table
from study.report.transforms import equivariance_table, transformed_table
from study.statistics import paired_gain


def measured(root: Path, stage: str, part: str, metric: str) -> list[float]:
    """Last value of a metric in every file whose name holds a part, by seed."""
    found = []
    for path in sorted((root / stage).glob(f"*{part}*.json")):
        records = json.loads(path.read_text())["records"]
        found.append([row["value"] for row in records if row["metric"] == metric][-1])
    return found


def row_of(table: Table, **choices: str) -> tuple[dict[str, str], dict[str, Any]]:
    rows = zip(table.shown, table.numbers, strict=True)
    return next(pair for pair in rows if choices.items() <= pair[1].items())


def drop(root: Path, stage: str, part: str) -> None:
    for path in (root / stage).glob(f"*{part}*.*"):
        path.unlink()


@pytest.mark.parametrize("seeds", [[0], [0, 1, 2]])
def test_tables_equal_the_metrics_files(root: Path, seeds: list[int]):
    study = grid(seeds)
    write_tree(study)
    results = collect(study, root)
    shown, numbers = row_of(autoencoder_table(study, results), autoencoder="small_kl", arm="eq")
    mean = fmean(measured(root, "evaluate_autoencoder", "small_kl-eq", "psnr_db"))
    assert numbers["psnr_db"] == pytest.approx(mean)
    assert shown["PSNR [dB]"].startswith(f"{mean:.4g}")
    assert ("±" in shown["PSNR [dB]"]) == (len(seeds) > 1)
    shown, numbers = row_of(generator_table(study, results), generator="sit", arm="eq")
    ours, theirs = (
        measured(root, "evaluate_generator", f"{arm}-?-sit", "fd_in_domain")
        for arm in ("eq", "plain")
    )
    assert numbers["fd_in_domain"] == pytest.approx(fmean(ours))
    assert numbers["gain"] == pytest.approx(paired_gain(ours, theirs).value)
    assert (numbers["gain_low"] is None) == (len(seeds) == 1)
    assert ("n = 1, no interval" in shown["Gain over plain"]) == (len(seeds) == 1)


def test_the_table_of_autoencoders_holds_the_headline_metrics(root: Path):
    study = grid([0])
    write_tree(study)
    table = autoencoder_table(study, collect(study, root))
    shown, numbers = row_of(table, autoencoder="small_kl", arm="eq")
    assert [*shown] == [
        *("Autoencoder", "Arm", "Seeds", "PSNR [dB]", "SSIM", "Perceptual in-domain"),
        *("rFD in-domain 512", "Equiv. error, turns", "Equiv. error, scales"),
        *("Paper's form, turns", "Paper's form, scales", "Latent std", "Beyond ±3"),
        *("Spectral slope", "Intrinsic dim. 512", "Codebook perplexity"),
    ]
    assert shown["Codebook perplexity"] == "–"
    found = measured(root, "evaluate_autoencoder", "small_kl-eq", "intrinsic_dimension_512")
    assert [numbers["intrinsic_dimension_512"]] == found
    assert row_of(table, autoencoder="small_vq", arm="eq")[0]["Codebook perplexity"] != "–"


def test_a_grid_without_codebooks_has_no_column_for_them(root: Path):
    study = grid([0])
    write_tree(study)
    drop(root, "evaluate_autoencoder", "small_vq")
    table = autoencoder_table(study, collect(study, root))
    assert not any("odebook" in title for row in table.shown for title in row)


def test_equivariance_has_a_row_for_each_variant_and_form(root: Path):
    study = grid([0, 1])
    write_tree(study)
    table = equivariance_table(study, collect(study, root))
    forms = ("variance", "paper's")
    for autoencoder, variants in (
        ("small_kl", ("rule", "sampled", "antialiased")),
        ("small_vq", ("rule", "antialiased")),
    ):
        rows = [row for row in table.numbers if row["autoencoder"] == autoencoder]
        assert len(rows) == 3 * len(variants) * 2
        eq = [(row["variant"], row["form"]) for row in rows if row["arm"] == "eq"]
        assert eq == [(variant, form) for variant in variants for form in forms]
    _, numbers = row_of(table, autoencoder="small_kl", arm="eq", variant="sampled", form="paper's")
    name = "equivariance_error_paper_scale_0.25_sampled"
    seeds = measured(root, "evaluate_autoencoder", "small_kl-eq", name)
    assert numbers["scale_0.25"] == pytest.approx(fmean(seeds))
    shown, _ = row_of(table, autoencoder="small_vq", arm="plain", variant="antialiased")
    assert [*shown][3:] == [
        *("Latents", "Resampling", "Over", "90°", "180°", "270°", "turns"),
        *("×0.25", "×0.5", "scales"),
    ]
    assert shown["Resampling"] == "bilinear, antialias"
    assert (shown["90°"], "±" in shown["×0.5"]) == ("–", True)


def test_decoded_transformed_latents_have_a_row_for_each_measure(root: Path):
    study = grid([0])
    write_tree(study)
    table = transformed_table(study, collect(study, root))
    assert len(table.shown) == 2 * 3 * 3
    own = [row for row in table.shown if (row["Autoencoder"], row["Arm"]) == ("small_vq", "eq")]
    assert [row["Measure"] for row in own] == [
        *("rFD in-domain 512", "PSNR [dB]", "Perceptual in-domain")
    ]
    _, numbers = row_of(table, autoencoder="small_vq", arm="eq", measure="psnr_db")
    found = measured(root, "evaluate_autoencoder", "small_vq-eq", "transformed_psnr_db_turn_180")
    assert [numbers["turn_180"]] == found


def test_generators_show_raw_weights_and_what_the_last_doubling_changed(root: Path):
    study = grid([0, 1])
    write_tree(study)
    results = collect(study, root)
    # Checkpoints of the made-up runs: 100, 200, 400, 600.
    table = generator_table(study, results)
    assert {row["Last doubling [%]"] for row in table.shown} == {"–"}
    early = pd.DataFrame(results[results["step"].isna() | (results["step"] < 500)])
    table = generator_table(study, early)
    _, numbers = row_of(table, generator="sit", arm="eq")
    own = where(results, "generator", "sit")
    own = where(where(own, "arm", "eq"), "metric", "fd_in_domain")
    own = own.pivot(index="seed", columns="step", values="value")
    expected = (100 * (own[400] / own[200] - 1)).mean()
    assert numbers["fd_in_domain_last_doubling"] == pytest.approx(expected)
    _, numbers = row_of(generator_table(study, results), generator="sit", arm="eq")
    assert numbers["fd_in_domain_raw"] == pytest.approx(7.7)


def test_names_carry_the_number_of_images(root: Path):
    study = grid([0])
    write_tree(study)
    columns = generator_table(study, collect(study, root)).shown[0]
    assert {"FD in-domain 1k", "KID in-domain 1k", "FD in-domain 1k, random latents"} <= set(
        columns
    )
    assert [count(n) for n in (512, 1000, 1500, 50_000, 1_200_000)] == [
        *("512", "1k", "1.5k", "50k", "1.2M")
    ]
    assert label("psnr_db", [512]) == "PSNR [dB]"


@pytest.mark.parametrize("name", choices("generator"))
def test_a_generators_name_begins_with_its_objective_and_shows_repas_target(name: str):
    config = generator_group(name)
    assert objective(name) == config.objective.value
    if isinstance(config, REPAConfig):
        own = config.target is AlignmentTarget.in_domain
        shown = "in-domain" if own else "DINOv2"
        assert generator(name) == f"REPA ({shown} target)"


def test_a_missing_cell_renders_as_not_run(root: Path):
    study = grid([0])
    write_tree(study)
    drop(root, "evaluate_generator", "plain-0-dit")
    drop(root, "evaluate_autoencoder", "small_vq-eq")
    drop(root, "train_network", "laptop")
    results, spent = collect(study, root), costs(study, root)
    missing = {"autoencoder": "small_vq", "arm": "eq"}
    for table, chosen in (
        (generator_table(study, results), {"generator": "dit", "arm": "plain"}),
        (autoencoder_table(study, results), missing),
        (equivariance_table(study, results), missing),
        (transformed_table(study, results), missing),
        (cost_table(study, spent), {"stage": "train_network"}),
    ):
        shown, numbers = row_of(table, **chosen)
        assert list(shown.values()).count("not run") >= 3
        named = {"Generator", "Autoencoder", "Arm", "Stage"}
        named |= {"Latents", "Resampling", "Over", "Measure"}
        assert all(text == "not run" for title, text in shown.items() if title not in named)
        assert "not run" in numbers.values()
        assert all(text.strip() for row in table.shown for text in row.values())


def test_a_gain_without_control_is_not_run(root: Path):
    study = grid([0])
    write_tree(study)
    drop(root, "evaluate_generator", "plain-0-dit")
    shown, _ = row_of(generator_table(study, collect(study, root)), generator="dit", arm="eq")
    assert shown["Gain over plain"] == "not run"
    assert shown["FD in-domain 1k"] != "not run"


def test_a_grid_without_control_has_no_gain(root: Path):
    study = grid([0])
    write_tree(study)
    cells = study["evaluate_generator"]
    study["evaluate_generator"] = {k: v for k, v in cells.items() if v["arm"] == "eq"}
    table = generator_table(study, collect(study, root))
    assert {row["Gain over plain"] for row in table.shown} == {"no control"}


def test_missing_seeds_are_counted_and_left_out_of_pairs(root: Path):
    study = grid([0, 1, 2])
    write_tree(study)
    drop(root, "evaluate_generator", "plain-1-sit")
    table = generator_table(study, collect(study, root))
    assert row_of(table, generator="sit", arm="plain")[0]["Seeds"] == "2 of 3"
    assert row_of(table, generator="sit", arm="eq")[1]["gain_n"] == 2


def test_a_table_is_written_three_times(root: Path, tmp_path: Path):
    study = grid([0, 1])
    write_tree(study)
    table = autoencoder_table(study, collect(study, root))
    table.write(tmp_path / "tables")
    latex = (tmp_path / "tables" / "autoencoders.tex").read_text()
    assert r"\toprule" in latex
    assert r"$\pm$" in latex
    assert r"small\_kl" in latex
    with (tmp_path / "tables" / "autoencoders.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["psnr_db"]) for row in rows] == [row["psnr_db"] for row in table.numbers]
    assert (tmp_path / "tables" / "autoencoders.md").read_text() == table.markdown()


def test_costs_add_up(root: Path):
    study = grid([0])
    write_tree(study)
    spent = costs(study, root)
    table = cost_table(study, spent)
    assert sum(row["minutes"] for row in table.numbers) == pytest.approx(
        spent["seconds"].sum() / 60
    )


def test_the_quality_of_samples_is_shown_beside_that_of_held_out_images(root: Path):
    study = grid([0, 1])
    write_tree(study)
    table = quality_table(study, collect(study, root))
    first = table.shown[0]
    assert (first["Generator"], first["Arm"]) == ("held-out images", "–")
    assert (first["FD in-domain 1k"], first["Precision in-domain"]) == ("0.31", "0.9")
    shown, numbers = row_of(table, generator="sit", arm="eq")
    found = measured(root, "evaluate_generator", "eq-?-sit", "precision_in_domain")
    assert numbers["precision_in_domain"] == pytest.approx(fmean(found))
    assert shown["Nearest ratio pixels"] == "0.9 ± 0"
    assert shown["FD in-domain, n → ∞"] == "not measured"
    assert "n = 1,000" in table.notes[0]
