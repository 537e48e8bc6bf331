"""Real steps with the parameters of profile `paper`, from an ImageNet-layout folder, across a kill.

On a GPU with 80 GB, in under three minutes, `pytest -m gpu tests/gpu/test_paper_steps.py` trains
DiT-XL/2; the autoencoder has SD-VAE's architecture and random weights, the images are those of
`STUDY_TEST_DATA` enlarged to 256 pixels or, without it, procedural. On a CPU the same runs with a
small backbone and a small autoencoder.
"""

import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from clones import Clone, make_clone
from PIL import Image

from study.autoencoders.models import create_autoencoder
from study.config import AutoencoderConfig, Family
from study.data import shapes

SIDE, CLASSES = 256, 4
STEPS, SMALL_STEPS = 8, 40
LIMIT_S = 180.0
SAVED_AFTER_S = 25.0
"""Between the start of XL/2's training and the end of its first step, which is compiled."""
SD_VAE = {
    "block_out_channels": [128, 256, 512, 512],
    "layers_per_block": 2,
    "latent_channels": 4,
}
SMALL_VAE = {
    "block_out_channels": [4, 4, 4, 4],
    "layers_per_block": 1,
    "latent_channels": 4,
    "norm_num_groups": 2,
    "mid_block_add_attention": False,
}
SMALL_BACKBONE = {"width": 32, "depth": 2, "heads": 2, "projection_depth": 1}
AUTOENCODER = "sd_vae_ft_ema"
CELL = (
    "profile=paper",
    "data=imagenet_256",
    f"autoencoder={AUTOENCODER}",
    "arm=pretrained",
    "seed=0",
)
INSTANCE = f"paper-imagenet_256-{AUTOENCODER}-pretrained-0-dit-standardised"


@dataclass
class Study:
    """A clone with the parameters of `paper`, shortened."""

    clone: Clone

    @property
    def root(self) -> Path:
        return self.clone.root

    def command(self, stage: str) -> list[str]:
        cell = {
            "prepare_data": CELL[:2],
            "finetune_autoencoder": CELL,
            "cache_latents": CELL,
            "train_generator": (*CELL, "generator=dit", "scaling=standardised", "backbone=XL_2"),
        }[stage]
        return [sys.executable, "-m", f"study.stages.{stage}", *cell]

    def start(self, stage: str, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(stage),
            cwd=self.root,
            env=self.clone.environment | environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def run(self, stage: str, **environment: str) -> str:
        began = time.monotonic()
        process = self.start(stage, **environment)
        printed, _ = process.communicate(timeout=600)
        assert process.returncode == 0, printed
        print(f"{stage}: {time.monotonic() - began:.0f} s")
        return printed

    def curve(self) -> list[dict[str, str]]:
        file = self.root / "reports/paper/metrics/train_generator" / f"{INSTANCE}.csv"
        with file.open(newline="") as stream:
            return list(csv.DictReader(stream))


def pictures(count: int) -> list[tuple[int, Image.Image]]:
    """Labelled images of 256 pixels: of the development images, else procedural."""
    folder = os.environ.get("STUDY_TEST_DATA")
    files = sorted(Path(folder, "data", "imagenet20-128").glob("train-*.parquet")) if folder else []
    if not files:
        drawn = shapes.dataset(count, CLASSES, SIDE, seed=0)
        return [(label, Image.fromarray(image)) for image, label in drawn]
    import pyarrow.parquet as parquet

    found: list[tuple[int, Image.Image]] = []
    counts = dict.fromkeys(range(CLASSES), 0)
    for batch in parquet.ParquetFile(files[0]).iter_batches(256, columns=["image", "label"]):
        for row in batch.to_pylist():
            if counts.get(row["label"], count) < count // CLASSES:
                counts[row["label"]] += 1
                small = Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB")
                found.append((row["label"], small.resize((SIDE, SIDE), Image.Resampling.BICUBIC)))
        if len(found) == count:
            return found
    return found


def edit(file: Path, section: str | None, **values: Any) -> None:
    content = yaml.safe_load(file.read_text())
    (content[section] if section else content).update(values)
    file.write_text(yaml.safe_dump(content, sort_keys=False))


def make_study(folder: Path, small: bool) -> Study:
    """Data, weights and parameters."""
    clone = make_clone(folder)
    root = clone.root
    images = pictures(16 if small else 320)
    for number, (label, image) in enumerate(images):
        split = "val" if number % 10 == 9 else "train"
        folder = root / "data" / "imagenet" / split / f"n{label:08d}"
        folder.mkdir(parents=True, exist_ok=True)
        image.save(folder / f"{number:05d}.JPEG", quality=90)
    torch.manual_seed(0)
    create_autoencoder(
        AutoencoderConfig(
            family=Family.kl,
            weights=None,
            architecture=SMALL_VAE if small else SD_VAE,
            published_scale=0.18215,
        )
    ).save(root / "weights" / AUTOENCODER)
    profile = root / "params" / "profile" / "paper.yaml"
    edit(profile, "train_generator", steps=STEPS, checkpoints=[1.0])
    # For a few hundred images compiling the encoder takes longer than encoding.
    edit(profile, "cache_latents", compile=False)
    if small:
        edit(root / "params" / "backbone" / "XL_2.yaml", None, **SMALL_BACKBONE)
        edit(profile, "train_generator", compile=False, batch_size=8, micro_batch_size=4)
        edit(profile, "train_generator", steps=SMALL_STEPS)
        edit(profile, "cache_latents", batch_size=4)
    # What other instances need is not there.
    clone.use("paper", "--without-inputs")
    return Study(clone)


def killed_and_resumed(study: Study, keep_every_s: float) -> str:
    """Train until a state is kept, kill, train on; what the second start printed."""
    first = study.start("train_generator", STUDY_KEEP_EVERY_S=str(keep_every_s))
    began = time.monotonic()
    while not list(study.root.glob("work/train_generator/*/*/state-*.pt")):
        assert first.poll() is None, first.communicate()[0]
        assert time.monotonic() - began < LIMIT_S
        time.sleep(0.002)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    print(f"until the kill: {time.monotonic() - began:.0f} s")
    assert not study.root.joinpath("outputs/paper/train_generator", INSTANCE, "index.json").exists()
    return study.run("train_generator")


def check(study: Study, keep_every_s: float = 0.0) -> None:
    for stage in ("prepare_data", "finetune_autoencoder", "cache_latents"):
        study.run(stage)
    manifest = study.root / "outputs/paper/prepare_data/paper-imagenet_256/manifest.json"
    assert json.loads(manifest.read_text())["image_size"] == SIDE
    printed = killed_and_resumed(study, keep_every_s)
    assert f"work/train_generator/{INSTANCE}/" in printed.partition("resumed from ")[2]
    curve = study.curve()
    steps = [int(row["step"]) for row in curve]
    assert steps == list(range(1, len(steps) + 1))
    assert len(steps) in (STEPS, SMALL_STEPS)
    assert all(0 < float(row["noise"]) < 10 for row in curve)


@pytest.mark.slow
def test_the_same_with_a_small_backbone_ends_as_if_it_had_not_been_killed(tmp_path: Path) -> None:
    study = make_study(tmp_path, small=True)
    check(study)
    resumed = study.curve()
    folder = study.root / "outputs/paper/train_generator" / INSTANCE
    weights = {file.name: file.read_bytes() for file in folder.glob("*.safetensors")}
    shutil.rmtree(folder)
    assert "resumed" not in study.run("train_generator")
    assert study.curve() == resumed
    assert weights == {file.name: file.read_bytes() for file in folder.glob("*.safetensors")}
    assert weights


@pytest.mark.gpu
def test_dit_xl_2_takes_real_steps_and_resumes_after_a_kill(tmp_path: Path) -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    began = time.monotonic()
    study = make_study(tmp_path, small=False)
    print(f"\nimages and weights: {time.monotonic() - began:.0f} s")
    check(study, SAVED_AFTER_S)
    metrics = study.root / "reports/paper/metrics/train_generator" / f"{INSTANCE}.json"
    content = json.loads(metrics.read_text())
    assert content["parameters"]["backbone"]["width"] == 1152
    assert content["parameters"]["train_generator"]["batch_size"] == 256
    seconds = time.monotonic() - began
    print(f"\n{STEPS} steps of DiT-XL/2, killed once: {seconds:.0f} s, data and latents included")
    assert seconds < LIMIT_S
