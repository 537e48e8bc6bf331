"""The cost of the paper's scale on paper: what the page says is what the arithmetic gives."""

import json
import re
from pathlib import Path

import pytest

from benchmarks import paper_cost
from benchmarks.paper_cost import NETWORK, NVLINK, PROFILES, cost, filled, main, speed_up
from study import paths
from study.estimate import Estimate


def test_the_page_has_the_tables_of_the_arithmetic() -> None:
    text = paper_cost.DOCUMENT.read_text()
    assert filled(text) == text


@pytest.mark.parametrize("profile", PROFILES)
def test_the_header_of_a_profile_has_the_total(profile: str) -> None:
    header = (paths.PARAMS / "profile" / f"{profile}.yaml").read_text().partition("grid:")[0]
    (hours,) = re.findall(r"(\d+) GPU hours in all", header.replace("\n# ", " "))
    assert int(hours) == round(cost(profile).total)


def test_processes_scale_until_gradients_take_longer_than_the_backward_pass() -> None:
    assert speed_up(599, 675e6, 1) == 1
    assert speed_up(599, 675e6, 8) == pytest.approx(8)
    exchange = 2 * 15 / 16 * 4 * 675e6 / NETWORK
    third = 256 / 599 / 16 / 3
    assert speed_up(599, 675e6, 16) == pytest.approx(256 / 599 / (third + exchange))
    assert NETWORK < NVLINK


def made(seconds: dict[str, float], needs: dict[str, list[str]], done: list[str]) -> Estimate:
    return Estimate(
        profile="p", digest="", seconds=seconds, size={}, done=done, dvc_s=0.0, needs=needs
    )


def test_wall_clock_is_the_longest_chain_or_the_work_over_the_workers() -> None:
    seconds = {"a": 10.0, "b": 20.0, "c": 20.0, "d": 5.0}
    needs = {"a": [], "b": ["a"], "c": ["a"], "d": ["b", "c"]}
    assert made(seconds, needs, []).wall_s(1) == 55
    assert made(seconds, needs, []).wall_s(2) == 35
    assert made(seconds, needs, []).wall_s(9) == 35
    assert made(seconds, needs, ["a", "b"]).wall_s(1) == 25
    assert made(seconds, needs, list(seconds)).wall_s(3) == 0


def test_measured_points_stand_beside_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "scale.json"
    monkeypatch.setattr(paper_cost, "MEASURED", file)
    assert paper_cost.measured().startswith("Not measured yet")
    one = {"row": "dit_xl2", "scaling": "weak", "processes": 1, "images_per_s": 500.0}
    two = {**one, "processes": 2, "images_per_s": 950.0, "speed_up": 1.9}
    file.write_text(json.dumps({"records": [one, two], "summary": [two]}))
    expected = [
        "| dit_xl2 | the same | 1 | 500.0 | 1.00 | 599 images/s |",
        "| dit_xl2 | times the GPUs | 2 | 950.0 | 1.90 | 2.00 |",
    ]
    assert paper_cost.measured().splitlines()[-2:] == expected
    page = tmp_path / "page.md"
    page.write_text(paper_cost.DOCUMENT.read_text())
    main(page)
    assert "\n".join(expected) in page.read_text()
