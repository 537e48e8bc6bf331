from collections import Counter
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image
from synthetic import grid, write_tree

from study import paths
from study.report.figures import STYLE, WIDTH, arm_look, draw_panels, legend, panels, save
from study.report.names import ARMS, FIRST
from study.report.pictures import instance_of, pictures
from study.report.strips import strips
from study.report.table import Row, table_rows


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A grid of one seed, of which every cell ran below `tmp_path`."""
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    write_tree(made := grid([0]))
    return made


def test_twenty_arms_have_a_colour_each():
    assert len(ARMS) == 20
    colours = [np.array(to_rgb(arm_look(arm)["color"])) for arm in ARMS]
    assert min(np.abs(a - b).max() for a, b in combinations(colours, 2)) > 0.05


def test_twenty_arms_have_a_marker_each_that_needs_no_colour():
    looks = [arm_look(arm) for arm in ARMS]
    assert len({(look["marker"], look["markerfacecolor"] == "white") for look in looks}) == 20


def test_the_control_is_open_and_neighbours_in_the_order_have_different_dashes():
    looks = [arm_look(arm) for arm in ARMS]
    assert arm_look("plain")["markerfacecolor"] == "white"
    assert arm_look("eq")["markerfacecolor"] != "white"
    assert all(a["linestyle"] != b["linestyle"] for a, b in pairwise(looks))


def test_panels_stand_in_as_many_columns_as_are_asked_for():
    rows = table_rows(grid([0]), "evaluate_autoencoder")
    figure = draw_panels({str(i): rows for i in range(8)}, lambda axes, rows: [1], columns=4)
    places = [axes.get_subplotspec() for axes in figure.axes]
    assert [(p.rowspan.start, p.colspan.start) for p in places if p] == [
        (line, column) for line in range(2) for column in range(4)
    ]


@pytest.mark.parametrize(("number", "columns"), [(1, 1), (2, 2), (3, 3), (4, 2), (5, 3)])
def test_panels_leave_no_empty_column(number: int, columns: int):
    rows = table_rows(grid([0]), "evaluate_autoencoder")
    figure = draw_panels({str(i): rows for i in range(number)}, lambda axes, rows: [1])
    used = {axes.get_subplotspec().colspan.start for axes in figure.axes if axes.axison}  # type: ignore[union-attr]
    assert used == set(range(columns))
    assert (figure.get_figwidth() < WIDTH) == (number == 1)


def test_only_what_ran_is_drawn_and_all_where_nothing_did():
    rows = table_rows(grid([0]), "evaluate_autoencoder")
    every = panels(rows, lambda row: True)
    assert [row for own in every.values() for row in own] == rows
    assert panels(rows, lambda row: False) == every
    title = next(iter(every))
    drawn = panels(rows, lambda row: row.arm == "eq" and row in every[title])
    assert drawn == {title: [row for row in every[title] if row.arm == "eq"]}


def test_a_title_tells_apart_what_is_drawn_not_what_is_planned():
    rows = table_rows(grid([0]), "evaluate_generator")
    others = [Row(row.choices | {"autoencoder": "other"}, row.seeds) for row in rows]
    sit = [row for row in [*rows, *others] if row.choices["generator"] == "sit"]
    own = sit[0].choices["autoencoder"]
    assert [*panels(sit, lambda row: row in rows)] == ["SiT"]
    assert {*panels(sit, lambda row: True)} == {f"SiT, {own}", "SiT, other"}


def test_a_drawing_is_saved_with_few_colours(tmp_path: Path):
    figure = Figure()
    figure.subplots().plot([0, 1], color="#D55E00")
    save(figure, tmp_path / "line")
    with Image.open(tmp_path / "line.png") as picture:
        assert picture.mode == "P"
        assert (0xD5, 0x5E, 0x00) in {c for _, c in picture.convert("RGB").getcolors(1 << 20) or []}


def test_saved_arms_keep_their_colours_however_thin_and_many(tmp_path: Path):
    figure = Figure(figsize=(9, 9))
    first, *others = figure.subplots(3, 3).flatten()
    for place, arm in enumerate(ARMS):
        first.plot([0, 1], [place, place], color=arm_look(arm)["color"], linewidth=1.8)
    # A few arms fill the other panels: the palette must not be theirs alone.
    for axes, arm in zip(others, ARMS, strict=False):
        for alpha in (0.2, 0.5, 1):
            ends = np.random.default_rng(0).random((2, 100))
            axes.plot(ends, color=arm_look(arm)["color"], alpha=alpha)
    save(figure, tmp_path / "lines")
    with Image.open(tmp_path / "lines.png") as picture:
        found = np.asarray(picture.convert("RGB")).reshape(-1, 3).astype(int)
    for arm in ARMS:
        own = np.round(np.array(to_rgb(arm_look(arm)["color"])) * 255)
        assert np.abs(found - own).max(1).min() <= 8, arm


@pytest.mark.parametrize(
    ("seeds", "told"), [([0, 0], "not run"), ([0, 1], "n = 1"), ([5, 0, 3], "n = 3 to 5")]
)
def test_a_panel_says_how_many_seeds_its_arms_have(seeds: list[int], told: str):
    rows = table_rows(grid([0]), "evaluate_autoencoder")
    (axes,) = draw_panels({"SiT": rows}, lambda axes, rows: seeds).axes
    assert axes.get_title() == f"SiT ({told})"


@pytest.mark.parametrize("number", [2, 3, 6])
def test_long_titles_stay_above_their_panels(number: int):
    rows = table_rows(grid([0]), "evaluate_autoencoder")
    name = "SiT, time shift 0.5, 0.5 times the rate, standardised"
    figure = draw_panels({f"{name} {i}": rows for i in range(number)}, lambda axes, rows: [10])
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    width = figure.bbox.width
    for line in (figure.axes[:3], figure.axes[3:6]):
        ends = [axes.title.get_window_extent(canvas.get_renderer()) for axes in line]
        assert all(box.x0 >= 0 and box.x1 <= width for box in ends)
        assert all(a.x1 < b.x0 for a, b in pairwise(ends))


def test_strips_have_the_images_once_and_a_row_per_arm(study: dict[str, Any], tmp_path: Path):
    root = tmp_path / "reports" / "laptop" / "metrics"
    instance = "laptop-shapes-small_kl-plain-0"
    side = 96
    sheet = np.zeros((2 * side, 4 * side, 3), dtype=np.uint8)
    sheet[:side], sheet[side:] = (10, 20, 30), (200, 100, 50)
    for file in (root / "evaluate_autoencoder").glob("*.png"):
        if "-transforms" not in file.name and "-latents" not in file.name:
            file.unlink()
    Image.fromarray(sheet).save(root / "evaluate_autoencoder" / f"{instance}.png")
    strips(study, root, tmp_path)
    with Image.open(tmp_path / "reconstructions.png") as picture:
        pixels = np.asarray(picture.convert("RGB")).reshape(-1, 3)
    # One arm ran: its images and reconstructions once each, pixel by pixel.
    for colour in ((10, 20, 30), (200, 100, 50)):
        assert (pixels == colour).all(axis=1).sum() == 4 * side * side


def test_strips_show_the_same_images_of_every_autoencoder(study: dict[str, Any], tmp_path: Path):
    root = tmp_path / "reports" / "laptop" / "metrics"
    side, columns = 96, 30
    sheet = np.zeros((2 * side, columns * side, 3), dtype=np.uint8)
    sheet[:side] = (10, 20, 30)
    rows = table_rows(study, "evaluate_autoencoder")
    # One of the two autoencoders has an arm less.
    del study["evaluate_autoencoder"][instance_of(study, "evaluate_autoencoder", rows[-1])]
    arms = Counter(row.choices["autoencoder"] for row in rows[:-1])
    assert sorted(arms.values()) == [2, 3]
    for row in rows[:-1]:
        instance = instance_of(study, "evaluate_autoencoder", row)
        Image.fromarray(sheet).save(root / "evaluate_autoencoder" / f"{instance}.png")
    strips(study, root, tmp_path)
    with Image.open(tmp_path / "reconstructions.png") as picture:
        pixels = np.asarray(picture.convert("RGB")).reshape(-1, 3)
    shown = (pixels == (10, 20, 30)).all(axis=1).sum() / side**2
    # As many as the block of three arms has room for, in both.
    assert shown == 2 * (44 // 4)


def test_pictures_of_generators_stand_four_to_a_line(study: dict[str, Any], tmp_path: Path):
    pictures(study, "evaluate_generator", tmp_path / "reports/laptop/metrics", tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as picture:
        width, height = picture.size
    # 4 generators with 2 arms each.
    assert 0.5 < height / width < 0.7


def test_large_grids_of_samples_are_cut_to_whole_samples(study: dict[str, Any], tmp_path: Path):
    root = tmp_path / "reports" / "laptop" / "metrics"
    files = sorted((root / "evaluate_generator").glob("*sit*.png"))
    # Four by four samples of 256 pixels, each of one colour.
    colours = np.arange(16, dtype=np.uint8).reshape(4, 4) * 10 + 50
    large = np.repeat(np.repeat(colours, 256, axis=0), 256, axis=1)
    for file in files:
        Image.fromarray(np.stack([large] * 3, axis=-1)).save(file)
    for file in set((root / "evaluate_generator").glob("*.json")):
        if file.with_suffix(".png") not in files:
            file.unlink()
    pictures(study, "evaluate_generator", root, tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as picture:
        pixels = np.asarray(picture.convert("L"))
    assert pixels.size < 2.5e6
    shown = min(4, max(2, int((1.5e6 / len(files)) ** 0.5) // 256))
    for row, column in np.ndindex(4, 4):
        inside = row < shown and column < shown
        count = (pixels == colours[row, column]).sum()
        assert count >= len(files) * 256**2 if inside else count < 256**2


@pytest.mark.parametrize("arms", [ARMS, ARMS[:12], ARMS[:5], FIRST])
@pytest.mark.parametrize("width", [4.5, 6.2, WIDTH])
def test_a_legend_fits_in_as_few_lines_as_it_can(arms: tuple[str, ...], width: float):
    with rc_context(STYLE):
        figure = Figure(figsize=(width, 4), layout="constrained")
        figure.subplots()
        legend(figure, arms)
        FigureCanvasAgg(figure).draw()
    (drawn,) = figure.legends
    box = drawn.get_window_extent()
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.x1
    if arms == ARMS[:5] and width >= 6:
        # On one line, though as many columns as wide as the longest name would take two.
        assert box.height < 2 * max(text.get_window_extent().height for text in drawn.texts)
