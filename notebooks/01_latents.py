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
# # What do the latents look like, and how do they move?
#
# Of the selected profile: each arm's latents in colour (first three principal components) under a
# quarter turn and a halving, the images decoded from transformed latents, and the power spectra.
# All drawing is done by `study.report`. Run `dvc repro` first.

# %%
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
from IPython.display import Image, Markdown, display

from study import paths
from study.config import load_grid
from study.report.spectra import spectra
from study.report.strips import strips
from study.report.tables import autoencoder_table
from study.report.transforms import equivariance_table

# %%
grid = load_grid(paths.GRID)
folder = paths.report(grid["profile"])
results = pd.read_csv(folder / "results.csv")
drawn = TemporaryDirectory()
figures = Path(drawn.name)
strips(grid, folder / "metrics", figures)

# %% [markdown]
# From left to right: image x, E(x), E(R x), R E(x), E(S x), S E(x). For an equivariant encoder the
# third and fourth columns are equal, and the last two.

# %%
display(Image((figures / "latents.png").read_bytes()))

# %% [markdown]
# Images decoded from transformed latents; the first row is what they should be.

# %%
display(Image((figures / "transforms.png").read_bytes()))

# %%
display(Markdown(equivariance_table(grid, results).markdown()))

# %% [markdown]
# Power spectra: EQ-VAE lowers the high frequencies of latents.

# %%
spectra(grid, folder / "metrics", figures / "spectra")
display(Image((figures / "spectra.png").read_bytes()))

# %%
display(Markdown(autoencoder_table(grid, results).markdown()))
drawn.cleanup()
