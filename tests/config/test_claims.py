from collections.abc import Callable
from pathlib import Path

import pytest

from study import paths
from study.config import ConfigError
from study.config.claims import Claim, Effect, Status, load_claims
from study.preflight import check_grid

Edit = Callable[..., None]


@pytest.fixture(scope="module")
def claims() -> dict[int, Claim]:
    return {claim.number: claim for claim in load_claims(paths.PARAMS / "claims.yaml")}


@pytest.fixture
def file(params: Path) -> Path:
    return params / "claims.yaml"


def refused(file: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        load_claims(file)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_all_twenty_claims_are_there(claims: dict[int, Claim]) -> None:
    assert sorted(claims) == list(range(1, 21))
    assert all(claim.endpoints or claim.missing for claim in claims.values())


def test_claims_3_and_4_are_confirmatory_and_share_their_primary_endpoint(
    claims: dict[int, Claim],
) -> None:
    confirmatory = [n for n, c in claims.items() if c.status is Status.confirmatory]
    assert confirmatory == [3, 4]
    (one,), (other,) = (
        [endpoint for endpoint in claims[number].endpoints if endpoint.primary] for number in (3, 4)
    )
    assert one == other
    assert (one.treatment, one.control, one.generator) == ("eq", "plain", "dit")
    assert (one.effect, one.threshold, one.checkpoints) == (Effect.relative, 0.02, 3)


def test_the_collapse_is_judged_by_error_over_variance_scale_and_psnr(
    claims: dict[int, Claim],
) -> None:
    primary = [endpoint for endpoint in claims[8].endpoints if endpoint.primary]
    metrics = [endpoint.metric for endpoint in primary]
    assert metrics == [["equivariance_error"], ["latent_std"], ["psnr_db"]]


@pytest.mark.parametrize("number", [1, 2, 6, 7, 8, 11, 12, 13, 19, 20])
def test_claims_about_autoencoders_need_no_generator(claims: dict[int, Claim], number: int) -> None:
    primary = [endpoint for endpoint in claims[number].endpoints if endpoint.primary]
    assert primary
    assert {endpoint.generator for endpoint in primary} == {None}


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("threshold", 0.0, "threshold = 0.0: must be between 0 and 1"),
        ("treatment", "eq_x", "treatment = 'eq_x': must be the name of a file in params/arm"),
        ("control", None, "control = None: must be null exactly for a correlation"),
        ("generator", "gan", "generator = 'gan': must be null or one of dit, sit"),
        ("scaling", "fixed", "scaling = 'fixed': must be one of [None]"),
        ("checkpoints", 3, "checkpoints = 3: must be given exactly with a generator"),
        ("fraction", 0.5, "fraction = 0.5: must be given exactly for speed_up"),
        ("against", ["x"], "against = ['x']: must be given exactly for a correlation"),
        ("metric", [], "metric = []: must be at least one name"),
        ("effect", "speed_up", "fraction = None: must be given exactly for speed_up"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused_in_one_line(
    file: Path, edit: Edit, key: str, value: object, message: str
) -> None:
    edit(file, "claims", 0, "endpoints", 0, key, value=value)
    # Anchors share the entry, so that the message may be of any claim that uses it.
    assert message in refused(file)
    assert refused(file).startswith("params/claims.yaml: claims[")


@pytest.mark.parametrize("key", ["threshold", "hypothesis", "primary"])
def test_a_rule_without_a_part_is_refused(file: Path, edit: Edit, key: str) -> None:
    edit(file, "claims", 0, "endpoints", 0, key, drop=True)
    message = refused(file)
    assert key in message
    assert "missing" in message


def test_a_claim_has_endpoints_or_says_what_is_missing(file: Path, edit: Edit) -> None:
    edit(file, "claims", 9, "missing", value=None)
    assert "claims[9].missing = None: must be given without primary endpoints" in refused(file)


def test_a_number_is_of_one_claim(file: Path, edit: Edit) -> None:
    edit(file, "claims", 1, "number", value=1)
    assert "number: must be of one claim each" in refused(file)


@pytest.mark.parametrize("text", ["claims: 3\n", "other: []\n", "claims: []\nmore: 1\n"])
def test_another_file_is_refused(file: Path, text: str) -> None:
    file.write_text(text)
    assert "params/claims.yaml: must have the key claims, a list" in refused(file)


def test_bad_claims_are_found_before_anything_runs(file: Path) -> None:
    paths.GRID.write_text("profile: smoke\n")
    file.write_text("claims: 3\n")
    with pytest.raises(ConfigError, match=r"params/claims\.yaml: must have"):
        check_grid("smoke")
