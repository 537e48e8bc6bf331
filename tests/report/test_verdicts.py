"""From metrics files through results to verdicts, for results made to give each of them."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from synthetic import grid, record, write_instance

from study import paths
from study.config import Cell
from study.config.claims import Status, load_claims
from study.report.results import collect, write_csv
from study.report.verdicts import Judged, Verdict, judge

CLAIMS = {claim.number: claim for claim in load_claims(paths.PARAMS / "claims.yaml")}
SEEDS = [0, 1, 2, 3, 4]
SECOND = "fd_in_domain_self_supervised"
STEPS = [100, 200, 300, 400]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    return tmp_path


def study(
    gains: Sequence[float],
    generator: str = "dit",
    metric: str = "fd_in_domain",
    second: Sequence[float] = (),
) -> Any:
    """Write results in which each seed's last three distances are a share `gains[seed]` lower.

    Args:
        gains: by seed.
        generator: has the results.
        metric: of the distance.
        second: as gains, by the second extractor; empty: not measured.
    """
    seeds = list(range(len(gains)))
    plan = grid(seeds)
    for instance, choices in plan["evaluate_generator"].items():
        cell = Cell(**choices)
        if cell.generator != generator or cell.seed is None:
            continue
        rows = []
        for name, shares in ((metric, gains), (SECOND, second)):
            for place, step in enumerate(STEPS if shares else []):
                value = (10 + 3 * cell.seed) * 0.8**place
                if cell.arm == "eq":
                    # The first checkpoint must not matter.
                    value *= 5 if place == 0 else 1 - shares[cell.seed]
                rows.append(record(name, value, 1000) | {"step": step, "images_seen": 64 * step})
        write_instance("evaluate_generator", instance, cell, rows)
    _autoencoders(plan, {})
    return plan


def _autoencoders(plan: dict[str, Any], values: dict[str, Callable[[Cell], float]]) -> None:
    for instance, choices in plan["evaluate_autoencoder"].items():
        cell = Cell(**choices)
        rows = [record(name, of(cell), 512) for name, of in values.items()]
        write_instance("evaluate_autoencoder", instance, cell, rows)


def verdict_of(plan: dict[str, Any], root: Path, number: int, profile: str = "laptop") -> Judged:
    """Through the file, as a reader would have it."""
    results = collect(plan, root / "reports" / "laptop" / "metrics")
    write_csv(results, root / "results.csv")
    again = pd.read_csv(root / "results.csv", dtype={"seed": "Int64", "step": "Int64"})
    # Claims of other families have no part in it.
    family = [claim for claim in CLAIMS.values() if claim.family == CLAIMS[number].family]
    judged = judge(family, plan | {"profile": profile}, again)
    return next(each for each in judged if each.claim.number == number)


@pytest.mark.parametrize(
    ("gains", "verdict"),
    [
        ([0.10, 0.11, 0.09, 0.12, 0.10], Verdict.supported),
        ([-0.10, -0.11, -0.09, -0.12, -0.10], Verdict.opposite),
        ([0.001, -0.002, 0.0, 0.003, -0.001], Verdict.no_effect),
        ([0.10, -0.05, 0.02, 0.15, -0.10], Verdict.undecided),
        # Clearly above zero, not clearly of practical size.
        ([0.021, 0.025, 0.018, 0.022, 0.024], Verdict.undecided),
        ([0.3], Verdict.undecided),
    ],
)
@pytest.mark.parametrize("number", [3, 4])
def test_results_made_for_a_verdict_get_it(
    root: Path, gains: list[float], verdict: Verdict, number: int
) -> None:
    found = verdict_of(study(gains), root, number)
    assert found.verdict is verdict
    outcome = found.outcomes[0]
    assert outcome.found.metric == "fd_in_domain"
    assert [1 - math.exp(-v) for v in outcome.found.values.values()] == pytest.approx(gains)
    assert outcome.estimate is not None
    assert outcome.estimate.n == len(gains)


def test_the_effect_is_the_mean_log_ratio_of_the_last_three_checkpoints(root: Path) -> None:
    plan = study([0.1, 0.2])
    for path in (root / "reports/laptop/metrics/evaluate_generator").glob("*eq-0-dit*.json"):
        content = json.loads(path.read_text())
        for row, factor in zip(content["records"], (9, 1, 2, 4), strict=True):
            row["value"] *= factor
        path.write_text(json.dumps(content))
    (first, second) = verdict_of(plan, root, 3).outcomes[0].found.values.values()
    assert first == pytest.approx(-math.log(0.9) - math.log(8) / 3)
    assert second == pytest.approx(-math.log(0.8))


def test_seeds_that_only_one_arm_has_are_left_out(root: Path) -> None:
    plan = study([0.1, 0.1, 0.1])
    for path in root.rglob("evaluate_generator/*plain-1-dit*.json"):
        path.unlink()
    assert list(verdict_of(plan, root, 3).outcomes[0].found.values) == [0, 2]


@pytest.mark.parametrize("both", [False, True])
def test_a_generator_is_found_by_its_objective(root: Path, both: bool) -> None:
    gains = [0.1, 0.11, 0.09]
    plan = study(gains, "repa")
    for path in (root / "reports/laptop/metrics/evaluate_generator").glob("*-repa-*.json"):
        content = json.loads(path.read_text())
        cell = replace(Cell(**content["cell"]), generator="repa_dinov2")
        write_instance("evaluate_generator", cell.instance, cell, content["records"])
        if not both:
            path.unlink()
            del plan["evaluate_generator"][content["instance"]]
        choices = {k: v for k, v in content["cell"].items() if v is not None}
        plan["evaluate_generator"][cell.instance] = choices | {"generator": "repa_dinov2"}
    found = verdict_of(plan, root, 15)
    assert found.verdict is Verdict.supported
    first = [o.found.choices["generator"] for o in found.outcomes if o.endpoint.primary]
    assert first == (["repa", "repa_dinov2"] if both else ["repa_dinov2"])


def test_what_has_not_run_is_named(root: Path) -> None:
    plan = study([0.1, 0.1])
    missing = {n: verdict_of(plan, root, n) for n in (5, 7, 10, 13, 14, 18)}
    assert {each.verdict for each in missing.values()} == {Verdict.not_run}
    assert missing[5].missing == ["generator dit with scaling fixed"]
    assert missing[7].missing == [f"arm {arm}" for arm in ("eq_scale", "eq_rotation", "eq_paper")]
    assert missing[10].missing == ["generators on autoencoders saved along fine-tuning"]
    assert missing[13].missing == ["another continuous autoencoder"]
    assert missing[14].missing == ["finished cells of eq and plain of sit"]
    assert missing[18].missing == ["at least 4 arms of dit, the same in each seed"]


def test_a_scale_that_is_planned_and_has_not_run_is_named(root: Path) -> None:
    plan = study([0.1, 0.1])
    cells = plan["evaluate_generator"]
    for name, cell in list(cells.items()):
        if cell["generator"] == "dit":
            fixed = cell | {"scaling": "fixed"}
            cells[name.replace("standardised", "fixed")] = fixed
    found = verdict_of(plan, root, 5)
    assert found.verdict is Verdict.not_run
    assert found.missing == ["finished cells of eq and plain of dit with scaling fixed"]


def test_nothing_run_is_no_verdict(root: Path) -> None:
    found = judge([*CLAIMS.values()], grid([0]), collect(grid([0]), root))
    assert {each.verdict for each in found} == {Verdict.not_run}
    assert all(each.missing for each in found)


def test_reproduced_is_for_the_papers_own_model_data_and_fid(root: Path) -> None:
    gains = [0.2, 0.21, 0.19]
    assert verdict_of(study(gains), root, 3, "paper").verdict is Verdict.supported
    assert verdict_of(study(gains, metric="fid"), root, 3, "laptop").verdict is Verdict.supported
    assert verdict_of(study(gains, metric="fid"), root, 3, "paper").verdict is Verdict.reproduced


def test_a_secondary_endpoint_decides_nothing(root: Path) -> None:
    plan = study([0.1, 0.11, 0.09])
    found = verdict_of(plan, root, 3)
    assert found.outcomes[1].verdict is Verdict.not_run
    assert not found.outcomes[1].endpoint.primary
    assert found.verdict is Verdict.supported


@pytest.mark.parametrize(
    ("factor", "bound", "verdict"),
    [
        (1.5, "", Verdict.supported),
        (0.6, "", Verdict.opposite),
        # Already there at its first checkpoint, or never there: no interval, so no verdict.
        (1000, "at least", Verdict.undecided),
        (0.01, "at most", Verdict.undecided),
    ],
)
def test_a_speed_up_that_is_only_bounded_decides_nothing(
    root: Path, factor: float, bound: str, verdict: Verdict
) -> None:
    plan = grid([0, 1, 2])
    for instance, choices in plan["evaluate_generator"].items():
        cell = Cell(**choices)
        speed = (factor if cell.arm == "eq" else 1) * (1 + 0.002 * (cell.seed or 0))
        rows = [
            record("fd_in_domain", 100 * (speed * step) ** -0.5, 1000) | {"step": step}
            for step in STEPS
        ]
        write_instance("evaluate_generator", instance, cell, rows)
    _autoencoders(plan, {})
    found = verdict_of(plan, root, 16)
    assert found.verdict is verdict
    primary = [outcome for outcome in found.outcomes if outcome.endpoint.primary]
    assert [outcome.found.bound for outcome in primary] == [bound] * 2
    assert all((o.estimate is None or o.estimate.low is None) == bool(bound) for o in primary)


PSNR = {"plain": 24.0, "eq": 23.95, "pretrained": 22.0}


def test_not_worse_is_supported_without_a_gain_and_refuted_by_one_endpoint(root: Path) -> None:
    plan = grid(SEEDS)
    values: dict[str, Callable[[Cell], float]] = {
        "rfd_in_domain": lambda c: 1 + 0.001 * (c.seed or 0),
        "perceptual_in_domain": lambda c: 0.2,
        "psnr_db": lambda c: PSNR[c.arm or ""] + 0.01 * (c.seed or 0) * (c.arm == "eq"),
        "ssim": lambda c: 0.7,
    }
    _autoencoders(plan, values)
    assert verdict_of(plan, root, 6).verdict is Verdict.supported
    _autoencoders(plan, values | {"ssim": lambda c: 0.7 - 0.1 * (c.arm == "eq")})
    found = verdict_of(plan, root, 6)
    assert found.verdict is Verdict.opposite
    assert [outcome.verdict for outcome in found.outcomes[:2]] == [Verdict.supported] * 2


def test_the_explicit_loss_collapses_only_if_all_three_signs_are_there(root: Path) -> None:
    plan = grid(SEEDS)
    renamed = json.dumps(plan["evaluate_autoencoder"]).replace("pretrained", "explicit")
    plan["evaluate_autoencoder"] = json.loads(renamed)
    values: dict[str, Callable[[Cell], float]] = {
        "equivariance_error": lambda c: {"eq": 0.4, "explicit": 0.6}.get(c.arm or "", 0.9),
        "latent_std": lambda c: 0.3 if c.arm == "explicit" else 1 + 0.001 * (c.seed or 0),
        "psnr_db": lambda c: 18.0 if c.arm == "explicit" else 24 + 0.01 * (c.seed or 0),
    }
    _autoencoders(plan, values)
    assert verdict_of(plan, root, 8).verdict is Verdict.supported
    # It wins even over the variance: no collapse, whatever the reconstruction.
    winning = {"equivariance_error": lambda c: 0.1 if c.arm == "explicit" else 0.4}
    _autoencoders(plan, values | winning)
    assert verdict_of(plan, root, 8).verdict is Verdict.opposite


def test_a_discrete_autoencoder_is_found_by_its_family(root: Path) -> None:
    plan = grid(SEEDS)
    _autoencoders(
        plan,
        {
            "equivariance_error_rotation": lambda c: 0.4 if c.arm == "eq" else 0.9,
            "equivariance_error_scale": lambda c: 0.4 if c.arm == "eq" else 0.9,
            "rfd_in_domain": lambda c: 1.0 + 0.001 * (c.seed or 0),
        },
    )
    found = verdict_of(plan, root, 12)
    assert found.verdict is Verdict.supported
    primary = [o for o in found.outcomes if o.endpoint.primary]
    assert {o.found.choices["autoencoder"] for o in primary} == {"small_vq"}


def test_the_largest_number_of_images_is_taken(root: Path) -> None:
    plan = grid(SEEDS)
    _autoencoders(
        plan,
        {
            "intrinsic_dimension_128": lambda c: 10.0,
            "intrinsic_dimension_1000": lambda c: 8.0 if c.arm == "eq" else 12.0,
        },
    )
    found = verdict_of(plan, root, 11)
    assert found.verdict is Verdict.supported
    assert found.outcomes[0].found.metric == "intrinsic_dimension_1000"


ARMS = ("plain", "eq", "eq_paper", "explicit", "eq_scale")


def _correlated(root: Path, arms_of: dict[int, tuple[str, ...]]) -> Judged:
    """Claim 18 where each seed has some arms, the further the larger their error but in seed 0."""
    plan = grid(SEEDS)
    for stage in ("evaluate_autoencoder", "evaluate_generator"):
        cells = {}
        for choices in plan[stage].values():
            for arm in arms_of.get(choices["seed"], ARMS[:4]):
                cells[replace(Cell(**choices), arm=arm).instance] = choices | {"arm": arm}
        plan[stage] = cells
    _autoencoders(plan, {"equivariance_error": lambda c: 1.0 + ARMS.index(c.arm or "")})
    for instance, choices in plan["evaluate_generator"].items():
        cell = Cell(**choices)
        if cell.generator == "dit":
            order = [0, 1, 2, 3, 4] if cell.seed else [0, 1, 3, 2, -1]
            value = 5.0 + order[ARMS.index(cell.arm or "")]
            rows = [record("fd_in_domain", value, 1000) | {"step": 100}]
            write_instance("evaluate_generator", instance, cell, rows)
    return verdict_of(plan, root, 18)


def test_a_rank_correlation_is_that_over_the_same_arms_in_each_seed(root: Path) -> None:
    # Seed 0 has an arm more, which would change what it has; seed 4 too few to count.
    found = _correlated(root, {0: ARMS, 4: ARMS[:3]})
    assert [*found.outcomes[0].found.values.values()] == pytest.approx([0.8, 1, 1, 1])
    assert set(found.outcomes[0].found.arms) == set(ARMS[:4])
    assert found.verdict is Verdict.supported


def test_seeds_that_share_too_few_arms_have_no_rank_correlation(root: Path) -> None:
    found = _correlated(root, {0: ARMS[1:]})
    assert found.verdict is Verdict.not_run
    assert found.missing == ["at least 4 arms of dit, the same in each seed"]


def test_the_primary_endpoints_of_an_exploratory_family_share_their_error(root: Path) -> None:
    plan = grid(SEEDS)
    _autoencoders(
        plan,
        {
            "equivariance_error_rotation": lambda c: 0.4 if c.arm == "eq" else 0.9,
            "equivariance_error_scale": lambda c: (
                (0.8 if c.arm == "eq" else 0.9) + 0.05 * (c.seed or 0) * (c.arm == "eq")
            ),
        },
    )
    found = verdict_of(plan, root, 1)
    assert found.claim.status is Status.exploratory
    levels = [outcome.level for outcome in found.outcomes]
    # Two of the family's endpoints have results; secondary ones keep 95 %.
    assert levels[:2] == pytest.approx([0.975, 0.95])
    assert set(levels[2:]) == {0.95}


def test_confirmatory_claims_keep_95_percent(root: Path) -> None:
    assert verdict_of(study([0.1, 0.11, 0.09]), root, 3).outcomes[0].level == 0.95


BETTER = [0.10, 0.11, 0.09]
WORSE = [-0.10, -0.11, -0.09]
NEITHER = [0.001, -0.002, 0.0]


@pytest.mark.parametrize(
    ("gains", "second", "verdict", "contradicted"),
    [
        (BETTER, BETTER, Verdict.supported, False),
        # The point estimate counts, however small.
        (BETTER, [0.03, -0.01, 0.01], Verdict.supported, False),
        (BETTER, [0.01, -0.03, 0.01], Verdict.undecided, True),
        (BETTER, WORSE, Verdict.undecided, True),
        (BETTER, [], Verdict.supported, False),
        (WORSE, WORSE, Verdict.opposite, False),
        (WORSE, BETTER, Verdict.undecided, True),
        (NEITHER, BETTER, Verdict.no_effect, False),
        (NEITHER, WORSE, Verdict.no_effect, False),
        # Undecided by itself.
        ([0.10, -0.05, 0.02], WORSE, Verdict.undecided, False),
    ],
)
def test_a_verdict_needs_the_sign_of_the_second_extractor(
    root: Path, gains: list[float], second: list[float], verdict: Verdict, contradicted: bool
) -> None:
    found = verdict_of(study(gains, second=second), root, 3)
    assert found.verdict is verdict
    outcome = found.outcomes[0]
    assert (outcome.verdict, outcome.contradicted) == (verdict, contradicted)
    assert (outcome.found.metric, bool(outcome.found.second)) == ("fd_in_domain", bool(second))


def test_another_distance_than_the_in_domain_one_needs_no_second(root: Path) -> None:
    found = verdict_of(study(BETTER, metric="fd_inception", second=WORSE), root, 3)
    assert found.verdict is Verdict.supported
    assert found.outcomes[0].found.second is None


def test_two_arms_that_are_equal_need_no_sign(root: Path) -> None:
    plan = study(NEITHER, second=[0.01, 0.012, 0.011])
    renamed = json.dumps(plan["evaluate_generator"])
    for arm, other in (("eq", "eq_probability_70"), ("plain", "eq_paper")):
        renamed = renamed.replace(f'"arm": "{arm}"', f'"arm": "{other}"')
        renamed = renamed.replace(f"-{arm}-", f"-{other}-")
        for path in (root / "reports/laptop/metrics/evaluate_generator").glob(f"*-{arm}-*-dit-*"):
            content = json.loads(path.read_text())
            cell = replace(Cell(**content["cell"]), arm=other)
            write_instance("evaluate_generator", cell.instance, cell, content["records"])
    plan["evaluate_generator"] = json.loads(renamed)
    outcome = verdict_of(plan, root, 9).outcomes[0]
    assert (outcome.verdict, outcome.contradicted) == (Verdict.supported, False)
    assert outcome.found.second is not None


@pytest.mark.parametrize(
    ("factor", "second", "verdict"),
    [
        (1.5, 1.2, Verdict.supported),
        (1.5, 0.9, Verdict.undecided),
        (0.6, 0.9, Verdict.opposite),
        # Only bounded: certainly faster; certainly slower.
        (1.5, 1000, Verdict.supported),
        (1.5, 0.01, Verdict.undecided),
    ],
)
def test_a_speed_up_needs_the_sign_of_the_second_extractor(
    root: Path, factor: float, second: float, verdict: Verdict
) -> None:
    plan = grid([0, 1, 2])
    for instance, choices in plan["evaluate_generator"].items():
        cell = Cell(**choices)
        rows = []
        for name, by in (("fd_in_domain", factor), (SECOND, second)):
            speed = (by if cell.arm == "eq" else 1) * (1 + 0.002 * (cell.seed or 0))
            values = {step: 100 * (speed * step) ** -0.5 for step in STEPS}
            rows += [record(name, v, 1000) | {"step": step} for step, v in values.items()]
        write_instance("evaluate_generator", instance, cell, rows)
    _autoencoders(plan, {})
    outcome = verdict_of(plan, root, 16).outcomes[0]
    assert outcome.verdict is verdict
    assert outcome.contradicted == (verdict is Verdict.undecided)
