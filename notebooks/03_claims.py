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
# # What does the study say of the paper's claims?
#
# Verdicts on the selected profile by the rules of `params/claims.yaml`, with the effect of every
# endpoint beside the paper's number. All judging and drawing is done by `study.report`. Run
# `dvc repro` first.

# %%
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
from IPython.display import Image, Markdown, display

from study import paths
from study.config import load_grid
from study.config.claims import load_claims
from study.report.claims import claims_table, endpoints_table, headline
from study.report.comparison import claim_sections, not_run_claims, verdict_table
from study.report.forest import forests
from study.report.results import costs, read
from study.report.verdicts import judge

# %%
grid = load_grid(paths.GRID)
folder = paths.report(grid["profile"])
results = pd.read_csv(folder / "results.csv")
judged = judge(load_claims(paths.PARAMS / "claims.yaml"), grid, results)
endpoints = endpoints_table(judged)
print(headline(judged))

# %%
display(Markdown(verdict_table(judged, endpoints).markdown()))

# %%
cells = read(grid, folder / "metrics")
claims = claims_table(judged, grid, cells, costs(grid, folder / "metrics"))
with TemporaryDirectory() as drawn:
    forests(judged, endpoints, Path(drawn))
    for claim in claim_sections(judged, grid, cells, claims, endpoints):
        display(Markdown(f"## {claim['number']}. {claim['claim']}: {claim['verdict']}"))
        display(Image((Path(drawn) / f"claim_{claim['number']:02d}.png").read_bytes()))
        display(Markdown(claim["table"]))

# %% [markdown]
# Not run, and what each would need:

# %%
display(Markdown("\n".join(f"- {line}" for line in not_run_claims(judged))))
