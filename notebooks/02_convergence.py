# ---
# jupyter:
#   jupytext:
#     formats: py:percent,ipynb
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Do generators converge faster on equivariant latents?
#
# Distance against training of the selected profile, and the factor by which an arm reaches the
# control's distance sooner. All drawing is done by `study.report`. Run `dvc repro` first.

# %%
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
from IPython.display import Image, Markdown, display

from study import paths
from study.config import load_grid
from study.report.curves import convergence
from study.report.headline import caption, headline_figure
from study.report.results import read
from study.report.speed import speed_up_table
from study.report.tables import generator_table

# %%
grid = load_grid(paths.GRID)
folder = paths.report(grid["profile"])
results = pd.read_csv(folder / "results.csv")
speed = speed_up_table(grid, results, read(grid, folder / "metrics"))
print(f"profile {grid['profile']}: {len(results)} results")

# %%
with TemporaryDirectory() as drawn:
    target = Path(drawn) / "headline"
    headline_figure(grid, results, speed, target)
    display(Image(target.with_suffix(".png").read_bytes()))
display(Markdown(caption(grid, results, speed)))

# %% [markdown]
# Every seed, with random latents and the floor (real against real).

# %%
with TemporaryDirectory() as drawn:
    target = Path(drawn) / "convergence"
    convergence(grid, results, target)
    display(Image(target.with_suffix(".png").read_bytes()))

# %%
display(Markdown(generator_table(grid, results).markdown()))

# %%
display(Markdown(speed.markdown()))
