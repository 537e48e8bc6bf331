import json
import math
from pathlib import Path
from typing import Any

import pytest
from synthetic import grid, write_tree

from study import paths
from study.config.claims import load_claims
from study.report.claims import claims_table, endpoints_table, headline
from study.report.results import collect, costs, read
from study.report.table import Table
from study.report.verdicts import judge
from study.statistics import t_interval

CLAIMS = load_claims(paths.PARAMS / "claims.yaml")


def tables(plan: dict[str, Any], root: Path) -> tuple[Table, Table, str]:
    judged = judge(CLAIMS, plan, collect(plan, root))
    spent = costs(plan, root)
    claims = claims_table(judged, plan, read(plan, root), spent)
    return claims, endpoints_table(judged), headline(judged)


def row_of(table: Table, number: int, place: int = 0) -> tuple[dict[str, str], dict[str, Any]]:
    rows = zip(table.shown, table.numbers, strict=True)
    return [pair for pair in rows if pair[1]["number"] == number][place]


def test_every_claim_has_a_row_with_verdict_effect_cost_and_scope(root: Path) -> None:
    plan = grid([0, 1, 2])
    for choices in plan["train_generator"].values():
        choices["backbone"] = "S_2"
    write_tree(plan)
    claims, _, sentence = tables(plan, root)
    assert [row["No."] for row in claims.shown] == [str(n) for n in range(1, 21)]
    shown, numbers = row_of(claims, 3)
    assert (shown["Verdict"], shown["Status"]) == ("supported", "confirmatory")
    assert shown["Effect"].startswith("DiT FD in-domain 1k +10")
    assert shown["Scope"] == "laptop: 32 px, 6 classes, small_kl, DiT-S/2, in-domain distance"
    assert numbers["minutes"] > 0
    assert row_of(claims, 1)[0]["Scope"] == "laptop: 32 px, 6 classes, small_kl"
    assert all(text.strip() for row in claims.shown for text in row.values())
    assert "7 not run" in sentence or "not run" in sentence
    assert sentence.endswith("(of 20).")


def test_a_claim_without_results_says_what_it_needs(root: Path) -> None:
    plan = grid([0])
    write_tree(plan)
    claims, endpoints, _ = tables(plan, root)
    shown, _ = row_of(claims, 8)
    assert (shown["Verdict"], shown["Effect"]) == ("not run", "needs arm explicit")
    assert shown["Scope"] == shown["Cost [min]"] == shown["Seeds"] == "not run"
    shown, numbers = row_of(endpoints, 8)
    assert (shown["Effect"], numbers["value"]) == ("needs arm explicit", None)


def test_one_seed_is_undecided_and_shown_without_interval(root: Path) -> None:
    plan = grid([0])
    write_tree(plan)
    claims, endpoints, _ = tables(plan, root)
    shown, _ = row_of(claims, 3)
    assert (shown["Verdict"], shown["Seeds"]) == ("undecided", "1")
    assert "[" not in shown["Effect"]
    assert row_of(endpoints, 3)[1]["low"] is None
    assert row_of(endpoints, 3)[1]["seeds_needed"] is None


def test_every_seed_of_every_endpoint_is_shown(root: Path) -> None:
    plan = grid([0, 1, 2])
    write_tree(plan)
    _, endpoints, _ = tables(plan, root)
    shown, numbers = row_of(endpoints, 1)
    assert len(shown["Each seed"].split(", ")) == 3
    seeds = dict(part.split(":") for part in numbers["seeds"].split())
    assert [*seeds] == ["0", "1", "2"]
    assert numbers["low"] < numbers["value"] < numbers["high"]
    assert numbers["level"] > 0.95
    assert shown["Seeds asked for"] == str(numbers["seeds_needed"])
    # Shares are averaged as logarithms.
    interval = t_interval([-math.log1p(-float(v)) for v in seeds.values()], numbers["level"])
    assert interval is not None
    enough = (interval[1] - interval[0]) / 2 <= math.log1p(numbers["threshold"])
    assert (numbers["seeds_needed"] > 3) != enough
    assert len(endpoints.numbers) == sum(len(claim.endpoints) for claim in CLAIMS)


def test_the_cost_is_that_of_the_cells_that_were_compared(root: Path) -> None:
    plan = grid([0])
    write_tree(plan)
    spent = costs(plan, root)
    arms = ("-plain-0", "-eq-0")
    mine = [
        seconds
        for stage, name, seconds in zip(
            spent["stage"], spent["instance"], spent["seconds"], strict=True
        )
        if (stage in ("finetune_autoencoder", "evaluate_autoencoder") and name.endswith(arms))
        and "small_kl" in name
    ]
    claims, _, _ = tables(plan, root)
    assert row_of(claims, 1)[1]["minutes"] == pytest.approx(sum(mine) / 60)


@pytest.mark.parametrize(("factor", "contradicted"), [(0.95, False), (1.3, True)])
def test_both_extractors_effects_stand_in_the_row(
    root: Path, factor: float, contradicted: bool
) -> None:
    plan = grid([0, 1, 2])
    write_tree(plan)
    for path in (root / "evaluate_generator").glob("*-dit-*.json"):
        content = json.loads(path.read_text())
        share = factor if "-eq-" in path.name else 1.0
        content["records"] += [
            row | {"metric": "fd_in_domain_self_supervised", "value": share * row["step"]}
            for row in content["records"]
            if row["metric"] == "fd_in_domain"
        ]
        path.write_text(json.dumps(content))
    claims, endpoints, _ = tables(plan, root)
    second = "−30.0 %" if contradicted else "+5.0 %"
    said = ": the second extractor has another sign" if contradicted else ""
    shown, numbers = row_of(endpoints, 3)
    assert shown["Effect"].startswith("+10")
    assert shown["Second extractor"] == second
    assert shown["Verdict"] == ("undecided" if contradicted else "supported") + said
    assert numbers["second_value"] == pytest.approx(1 - factor)
    assert numbers["contradicted"] == contradicted
    assert f"] ({second}{said})" in row_of(claims, 3)[0]["Effect"]
    # SiT was measured by the first alone, autoencoders by no distance of generators.
    assert row_of(endpoints, 14)[0]["Second extractor"] == "not measured"
    assert row_of(endpoints, 1)[0]["Second extractor"] == "–"
