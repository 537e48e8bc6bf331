"""Parameter files that were edited badly: a clean error or a correct configuration."""

import random
import time
from pathlib import Path
from typing import Any

import pytest

from study.config import (
    STAGES,
    ArmConfig,
    AutoencoderConfig,
    BackboneConfig,
    Cell,
    ConfigError,
    DataConfig,
    EvaluationConfig,
    GeneratorConfig,
    NetworkConfig,
    SamplerConfig,
    load,
    load_group,
)
from study.grid import expand, read_profile

LONGEST_S = 10.0
GROUPS: dict[str, Any] = {
    "arm": ArmConfig,
    "autoencoder": AutoencoderConfig,
    "backbone": BackboneConfig,
    "data": DataConfig,
    "evaluation": EvaluationConfig,
    "generator": GeneratorConfig,
    "network": NetworkConfig,
    "sampler": SamplerConfig,
}
ODD = (
    *("null", "-1", "0", "1e999", ".nan", "x", "[]", "{}", "true", "''", "1.5", "[1, two]"),
    *("{a: 1}", "9" * 40, "!!python/object:os.system", "${oc.env:HOME}", "${nothing}", "&a *a"),
    *("'\\0'", "2026-01-01", "0x10", "- 1", ": :", "@", "%", "\t", "é\u2028", "\x00", "../../x"),
)


def mutated(text: str, rng: random.Random) -> bytes:
    """A parameter file after one to three bad edits."""
    for _ in range(rng.randint(1, 3)):
        lines = text.splitlines()
        place = rng.randrange(len(lines))
        kind = rng.randrange(7)
        if kind == 0:
            del lines[place]
        elif kind in (1, 2, 3):
            key = lines[place].partition(":")[0]
            lines[place] = f"{key}: {rng.choice(ODD)}"
        elif kind == 4:
            lines.insert(place, rng.choice(lines))
        elif kind == 5:
            lines[place] = " " * rng.randint(1, 3) + lines[place]
        else:
            cut = rng.randrange(len(lines[place]) + 1)
            lines[place] = lines[place][:cut]
        text = "\n".join(lines) or "\n"
    content = bytearray(text.encode())
    if rng.random() < 0.1:
        content[rng.randrange(len(content))] = rng.randrange(256)
    return bytes(content)


def outcome(action: Any) -> str:
    """Whether it was accepted or refused; whatever else is raised is the test's failure."""
    began = time.monotonic()
    try:
        action()
        text = None
    except ConfigError as error:
        text = str(error)
    assert time.monotonic() - began < LONGEST_S
    if text is None:
        return "accepted"
    assert len(text.splitlines()) == 1, text
    assert len(text) < 2000
    return "refused"


def mutate_group(params: Path, rng: random.Random) -> str:
    group = rng.choice(sorted(GROUPS))
    file = rng.choice(sorted((params / group).glob("*.yaml")))
    whole = file.read_bytes()
    file.write_bytes(mutated(whole.decode(), rng))
    try:
        return outcome(lambda: load_group(GROUPS[group], group, file.stem))
    finally:
        file.write_bytes(whole)


def mutate_profile(params: Path, rng: random.Random) -> str:
    file = params / "profile" / "smoke.yaml"
    whole = file.read_bytes()
    file.write_bytes(mutated(whole.decode(), rng))
    cell = Cell(profile="smoke", data="shapes", autoencoder="kl_small", arm="eq", seed=0)
    try:
        first = outcome(lambda: expand("smoke", read_profile("smoke")))
        second = outcome(lambda: load(STAGES["finetune_autoencoder"], cell))
        return max(first, second)
    finally:
        file.write_bytes(whole)


@pytest.mark.parametrize("action", [mutate_group, mutate_profile])
def test_an_edited_file_is_refused_in_one_line_or_accepted(params: Path, action: Any) -> None:
    outcomes = [action(params, random.Random(seed)) for seed in range(60)]
    assert {"accepted", "refused"} == set(outcomes)


@pytest.mark.slow
@pytest.mark.parametrize("action", [mutate_group, mutate_profile])
def test_a_thousand_edited_files(params: Path, action: Any) -> None:
    for seed in range(1000, 1500):
        action(params, random.Random(seed))
