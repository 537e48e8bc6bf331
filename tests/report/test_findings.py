import json
import re
from pathlib import Path
from typing import Any

import pytest
from synthetic import grid, write_tree

from study import paths
from study.config import choices
from study.report.findings import findings, other_recipes, scope
from study.report.results import collect

MEASURED = {
    "fd_in_domain_self_supervised": {"plain": 10.0, "eq": 9.5, "eq_paper": 12.0},
    "fd_in_domain_reconstructions": {"plain": 20.0, "eq": 16.0},
    "rfd_in_domain_training": {"plain": 60.0, "eq": 45.0},
}


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    study = grid([0])
    write_tree(study)
    return study


def lines(study: dict[str, Any], part: str = "The same gains by other measures") -> list[str]:
    results = collect(study, paths.report(study["profile"]) / "metrics")
    return [line for line in findings(study, results, 0, 0) if part in line]


def add(study: dict[str, Any], *metrics: str, arms: tuple[str, ...] = ("plain", "eq")) -> None:
    """Append measurements to the last checkpoint of SiT."""
    folder = paths.report(study["profile"]) / "metrics" / "evaluate_generator"
    for arm in arms:
        (path,) = folder.glob(f"*-{arm}-0-sit-*.json")
        content = json.loads(path.read_text())
        last = max(content["records"], key=lambda record: record["step"] or 0)
        content["records"] += [last | {"metric": m, "value": MEASURED[m][arm]} for m in metrics]
        path.write_text(json.dumps(content))


def test_a_gain_stands_beside_what_other_features_and_the_decoder_say(study: dict[str, Any]):
    add(study, *MEASURED)
    (line,) = lines(study)
    assert line == (
        "The same gains by other measures. "
        "FD in-domain self-supervised 1k: SiT +5.0 %; "
        "FD in-domain to reconstructions 1k: SiT +20.0 %; "
        "rFD in-domain of training images 1k, the least that they can reach: "
        "SiT +25.0 %."
    )


def test_nothing_is_said_of_measures_that_were_not_taken(study: dict[str, Any]):
    assert lines(study) == []
    add(study, "fd_in_domain_self_supervised")
    assert lines(study)[0].endswith("self-supervised 1k: SiT +5.0 %.")


@pytest.mark.parametrize("with_plain", [True, False])
def test_against_the_pretrained_autoencoder_only_common_seeds_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, with_plain: bool
):
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    study = grid([0, 1])
    name, cell = next(
        (name, cell) for name, cell in study["evaluate_generator"].items() if "-eq-0-sit" in name
    )
    name = name.replace("-eq-", "-pretrained-")
    study["evaluate_generator"][name] = cell | {"arm": "pretrained"}
    write_tree(study)
    for instance, value in {"pretrained-0": 5.0, "eq-0": 6.0, "eq-1": 100.0}.items():
        change(study, f"*-{instance}-sit-*.json", "fd_in_domain", value)
    for file in [] if with_plain else list(tmp_path.rglob("*-plain-?-sit-*.json")):
        file.unlink()
    assert lines(study, "`pretrained`") == [
        "`eq` against `pretrained` (includes domain adaptation): "
        "FD in-domain 1k: SiT 6 against 5, gain −20.0 % (n = 1, no interval)."
    ]


def test_other_arms_stand_beside_the_control(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    study = grid([0, 1])
    for name, cell in list(study["evaluate_generator"].items()):
        # Each with one seed of two; what has not run is not told.
        if "-eq-0-sit" in name:
            for arm in ("plain_low_resolution", "plain_decoder", "eq_paper"):
                added = name.replace("-eq-", f"-{arm}-")
                study["evaluate_generator"][added] = cell | {"arm": arm}
    write_tree(study)
    change(study, "*-plain-0-sit-*.json", "fd_in_domain", 10.0)
    change(study, "*-plain_decoder-0-sit-*.json", "fd_in_domain", 11.0)
    change(study, "*-eq_paper-0-sit-*.json", "fd_in_domain", 9.0)
    for file in tmp_path.rglob("*-plain_low_resolution-0-sit-*.json"):
        file.unlink()
    assert lines(study, "Without transforms") == [
        "Without transforms (n = 1), gain over `plain` by FD in-domain 1k: "
        "`plain_decoder`: SiT −10.0 %."
    ]
    add(study, "fd_in_domain_self_supervised", arms=("plain", "eq_paper"))
    assert other_recipes(study, collect(study, paths.report(study["profile"]) / "metrics")) == (
        "Other recipes and rivals (n = 1), gain over `plain` by FD in-domain 1k, FD in-domain "
        "self-supervised 1k: SiT `eq_paper` +10.0 %, −20.0 %."
    )


def test_generators_after_the_foremost_are_told_in_brief(
    study: dict[str, Any], monkeypatch: pytest.MonkeyPatch
):
    kept = ("plain-0-sit", "eq-0-sit", "plain-0-dit", "eq-0-dit")
    for file in (paths.report(study["profile"]) / "metrics" / "evaluate_generator").glob("*.json"):
        if not any(part in file.name for part in kept):
            file.unlink()
    for arm, sit, dit in (("plain", 10.0, 20.0), ("eq", 8.0, 15.0)):
        change(study, f"*-{arm}-0-sit-*.json", "fd_in_domain", sit)
        change(study, f"*-{arm}-0-dit-*.json", "fd_in_domain", dit)
    assert not lines(study, "Further comparisons")
    monkeypatch.setattr("study.report.findings.FOREMOST", 1)
    head = "Further comparisons, the same gains in that order (n = 1): SiT"
    assert lines(study, "Further comparisons") == [f"{head} +20.0 %."]
    add(study, *MEASURED)
    (further,) = lines(study, "Further comparisons")
    assert further == f"{head} +20.0 %, +5.0 %, +20.0 %, +25.0 %."
    (first,) = lines(study, "Generators, ")
    assert first.endswith(": DiT 15 against 20, gain +25.0 % (n = 1, no interval).")


def test_a_generator_without_its_control_takes_no_place_and_is_named(
    study: dict[str, Any], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("study.report.findings.FOREMOST", 1)
    (first,) = lines(study, "Generators, ")
    assert ": DiT " in first
    (alone,) = paths.report(study["profile"]).glob(
        "metrics/evaluate_generator/*-plain-0-dit-*.json"
    )
    alone.unlink()
    (first,) = lines(study, "Generators, ")
    assert ": SiT " in first
    assert not lines(study, "DiT +")
    (last,) = lines(study, "Without a pair")
    assert last.endswith("Without a pair of `eq` and `plain` at the default schedule: DiT.")


def test_autoencoders_are_told_with_intervals_and_seeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    study = grid([0, 1, 2])
    write_tree(study)
    (line,) = lines(study, "Autoencoders, ")
    error, quality = r"×\d\S* \[\S+, \S+\]", r"[+−]\S+ dB \[\S+, \S+\]"
    named = re.findall(rf"(`\w+`) {error}, {quality}, n = 3", line)
    assert len(named) == len(re.findall(r"`\w+` ×", line)) > 1
    # One seed of the first; of the second a measurement less, and then nothing to compare it with.
    folder = paths.report(study["profile"]) / "metrics" / "evaluate_autoencoder"
    first, second = (name.strip("`") for name in named[:2])
    for seed in (1, 2):
        next(folder.glob(f"*-{first}-eq-{seed}.json")).unlink()
    path = next(folder.glob(f"*-{second}-eq-2.json"))
    content = json.loads(path.read_text())
    content["records"] = [r for r in content["records"] if r["metric"] != "psnr_db"]
    path.write_text(json.dumps(content))
    (line,) = lines(study, "Autoencoders, ")
    assert re.search(rf"`{first}` ×[\d.]+, [+−][\d.]+ dB, n = 1;", line)
    assert re.search(rf"`{second}` {error}, {quality}, n = 2 to 3", line)
    for path in folder.glob(f"*-{second}-plain-*.json"):
        path.unlink()
    (line,) = lines(study, "Autoencoders, ")
    assert line.endswith(f"; not run: `{second}`.")


def change(study: dict[str, Any], pattern: str, metric: str, value: float) -> None:
    """Set the measurement of the last checkpoint."""
    folder = paths.report(study["profile"]) / "metrics" / "evaluate_generator"
    (path,) = folder.glob(pattern)
    content = json.loads(path.read_text())
    own = [record for record in content["records"] if record["metric"] == metric]
    max(own, key=lambda record: record["step"])["value"] = value
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("profile", choices("profile"))
def test_a_profile_of_the_study_says_what_it_is_evidence_for(profile: str):
    assert "none of the study's own" in scope("of_somebody")
    assert "none of the study's own" not in scope(profile)
