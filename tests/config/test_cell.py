from dataclasses import asdict

import pytest

from study.config import Cell, ConfigError

CELL = Cell(
    profile="lab",
    data="shapes",
    autoencoder="kl_small",
    arm="eq",
    seed=2,
    generator="sit",
    scaling="standardised",
    backbone="S_2",
    sampler="heun",
)


def test_an_instance_is_named_by_its_choices_in_order() -> None:
    assert CELL.instance == "lab-shapes-kl_small-eq-2-sit-standardised"
    assert Cell(profile="lab").instance == "lab"
    assert Cell(profile="lab", data="shapes", role="target").instance == "lab-shapes-target"


def test_seed_zero_is_part_of_the_name() -> None:
    assert Cell(profile="lab", data="x", seed=0).instance == "lab-x-0"


def test_only_keeps_the_named_choices() -> None:
    assert CELL.only("data", "seed") == Cell(profile="lab", data="shapes", seed=2)


def test_parse_reads_what_a_command_gives() -> None:
    given = [f"{key}={value}" for key, value in asdict(CELL).items() if value is not None]
    assert Cell.parse(given) == CELL


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["profile"], "'profile': must be KEY=VALUE with KEY in profile, data"),
        (["profile=lab", "colour=red"], "'colour=red': must be KEY=VALUE"),
        (["data=shapes"], "profile: missing; give profile=NAME"),
        (["profile=lab", "seed=one"], "seed = 'one': must be a whole number"),
        (["profile=lab", "seed=1.5"], "seed = '1.5': must be a whole number"),
        (["profile=lab", "seed=-1"], "seed = -1: must be at least 0"),
        (["profile=lab", "data="], "data = '': must be letters"),
        (["profile=../lab"], "profile = '../lab': must be letters"),
        (["profile=lab", "arm=a-b"], "arm = 'a-b': must be letters"),
        (["profile=lab", "scaling=none"], "scaling = 'none': must be one of"),
    ],
)
def test_a_bad_argument_is_named(arguments: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Cell.parse(arguments)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
