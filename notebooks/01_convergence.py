# ---
# jupyter:
#   jupytext:
#     formats: py:percent
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
# Draws the convergence figure of a finished profile from its `results.csv`. All drawing is done by
# `study.report`, which also draws the figure of the report. Run `dvc repro` first.

# %%
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
from IPython.display import Image, Markdown, display

from study import paths
from study.config import load_grid
from study.report.curves import convergence
from study.report.tables import generator_table

# %%
grid = load_grid(paths.GRID)
results = pd.read_csv(paths.report(grid["profile"]) / "results.csv")
print(f"profile {grid['profile']}: {len(results)} results")

# %%
with TemporaryDirectory() as folder:
    target = Path(folder) / "convergence"
    convergence(grid, results, target)
    display(Image(target.with_suffix(".png").read_bytes()))

# %%
display(Markdown(generator_table(grid, results).markdown()))
