import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from synthetic import grid, write_tree

from study import paths
from study.report import detail as module
from study.report.detail import RINGS, detail, power

SIDE = 64


def waves(cycles: float, amplitude: float) -> np.ndarray:
    """One image, S S 3, of waves with so many cycles a pixel, about mid-grey."""
    row = 128 + amplitude * np.cos(2 * np.pi * cycles * np.arange(SIDE))
    return np.broadcast_to(row[None, :, None], (SIDE, SIDE, 3))


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Metrics of one seed, of which every cell ran."""
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    write_tree(grid([0]))
    return tmp_path / "reports" / "laptop" / "metrics"


def drawn(root: Path) -> list[dict[str, Any]]:
    detail(grid([0]), root, root.parent / "detail")
    assert (root.parent / "detail.png").is_file()
    with (root.parent / "detail.csv").open() as file:
        return list(csv.DictReader(file))


def test_waves_have_their_power_in_the_ring_of_their_frequency():
    frequency, powers = power(waves(0.3, 50)[None])
    # The corners reach to 0.5 times the root of 2.
    assert (frequency < 0.5).sum() == RINGS
    assert frequency.max() == pytest.approx(0.5 * 2**0.5, abs=0.5 / RINGS)
    ring = int(0.3 * 2 * RINGS)
    assert frequency[ring] == pytest.approx((ring + 0.5) / (2 * RINGS))
    assert powers.argmax() == ring
    assert powers[ring] > 100 * powers[[ring - 2, ring + 2]].max()


def test_white_noise_has_as_much_power_in_every_ring():
    noise = np.random.default_rng(0).normal(size=(64, SIDE, SIDE, 3))
    _, powers = power(noise)
    # The innermost ring lacks its mean, the outermost has few frequencies.
    assert powers[1:-1] == pytest.approx(powers[1:-1].mean(), rel=0.05)


def test_small_images_have_fewer_rings_and_every_ring_has_power():
    frequency, powers = power(np.random.default_rng(0).normal(size=(1, 16, 16, 3)))
    assert frequency.tolist() == [0.0625 * (2 * n + 1) for n in range(6)]
    assert (powers > 0).all()


def test_the_ratio_is_that_of_the_picture_s_second_line_to_its_first(root: Path):
    images = np.concatenate([waves(0.1, 40), waves(0.4, 40)], axis=1)
    # Half the amplitude of the fine waves, a quarter of their power.
    decoded = np.concatenate([waves(0.1, 40), waves(0.4, 20)], axis=1)
    picture = np.concatenate([images, decoded]).round().astype(np.uint8)
    for file in (root / "evaluate_autoencoder").glob("*-0.png"):
        Image.fromarray(picture).save(file)
    rows = drawn(root)
    for arm in ("plain", "eq"):
        own = {
            float(row["frequency"]): float(row["ratio"])
            for row in rows
            if (row["autoencoder"], row["arm"]) == ("small_kl", arm)
        }
        rings = sorted(own)
        assert own[min(rings, key=lambda ring: abs(ring - 0.1))] == pytest.approx(1, abs=0.01)
        assert own[min(rings, key=lambda ring: abs(ring - 0.4))] == pytest.approx(0.25, abs=0.01)


def test_what_has_no_picture_has_no_curve(root: Path):
    for file in (root / "evaluate_autoencoder").glob("*plain-0.png"):
        file.unlink()
    assert {row["arm"] for row in drawn(root)} == {"pretrained", "eq"}
    for file in (root / "evaluate_autoencoder").glob("*.png"):
        file.unlink()
    assert drawn(root) == []


def test_a_checkerboard_of_two_pixels_is_in_the_outermost_ring():
    board = np.indices((SIDE, SIDE)).sum(axis=0) % 2 * 20.0
    frequency, powers = power(np.broadcast_to(board[None, :, :, None], (1, SIDE, SIDE, 3)))
    assert frequency[powers.argmax()] == frequency.max()


def test_borders_that_do_not_fit_add_no_power():
    slope = np.linspace(0, 200, SIDE)[:, None, None] * np.ones((1, SIDE, 3))
    _, powers = power(slope[None])
    assert powers[RINGS - 2] < 1e-6 * powers[0]


def test_curves_are_means_over_seeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    write_tree(study := grid([0, 1]))
    found: list[Figure] = []
    monkeypatch.setattr(module, "save", lambda figure, target: found.append(figure))
    detail(study, paths.report("laptop") / "metrics", tmp_path / "detail")
    with (tmp_path / "detail.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["autoencoder"] == "small_kl"]
    axes = next(axes for axes in found[0].axes if axes.get_title().startswith("small_kl"))
    assert "n = 2" in axes.get_title()
    curves = [line for line in axes.lines if len(np.asarray(line.get_xdata())) > 2]
    for arm, line in zip(("pretrained", "plain", "eq"), curves, strict=True):
        own = [row for row in rows if row["arm"] == arm]
        seeds = [[float(row["ratio"]) for row in own if row["seed"] == seed] for seed in "01"]
        assert seeds[0] != seeds[1]
        assert np.asarray(line.get_ydata()) == pytest.approx(np.mean(seeds, axis=0))


def test_pictures_of_cells_that_have_not_ended_are_left_out(root: Path):
    for file in (root / "evaluate_autoencoder").glob("*plain-0.json"):
        file.unlink()
    assert {row["arm"] for row in drawn(root)} == {"pretrained", "eq"}
