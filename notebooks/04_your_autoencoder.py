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
# # How equivariant is your autoencoder?
#
# Any diffusers folder, checkpoint of latent-diffusion, or hub id; nothing is trained. Set `SOURCE`;
# as it stands, the notebook takes the first fine-tuned autoencoder of the selected profile.
# `python -m study inspect-autoencoder` does the same from the command line.

# %%
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
from IPython.display import Image, display

from study import paths
from study.config import DataConfig, load_grid, load_group
from study.exchange.inspect import inspect, open_autoencoder, save, summary
from study.report.spectra import spectrum_figure

# %%
SOURCE = None  # for example "weights/taesd"
DATA, SIZE, IMAGES = "shapes", 32, 64

grid = load_grid(paths.GRID)
outputs = paths.outputs(grid["profile"], "finetune_autoencoder", "")
source = SOURCE or str(min(path for path in outputs.iterdir() if path.is_dir()))
print(paths.shown(Path(source)))

# %%
analysis = inspect(
    open_autoencoder(source, None), load_group(DataConfig, "data", DATA), SIZE, IMAGES, 32
)
print(summary(analysis))

# %% [markdown]
# Reconstructions; latents under a quarter turn and a halving (third and fourth columns, and the
# last two, should be equal); images decoded from transformed latents, below what they should be.

# %%
with TemporaryDirectory() as folder:
    target = Path(folder) / "analysis"
    save(analysis, target, {"source": source})
    for name in ("reconstructions", "latents", "transforms"):
        display(Image((target / f"{name}.png").read_bytes(), width=800))
    spectrum_figure(pd.read_csv(target / "spectra.csv"), target / "spectra")
    display(Image((target / "spectra.png").read_bytes()))
