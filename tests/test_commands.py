"""Subcommands on the metrics and outputs of stages, as `python -m study` runs them."""

import argparse
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from study import paths
from study.autoencoders.models import Autoencoder, load_autoencoder
from study.commands import add_parsers
from study.config import ArmConfig, AutoencoderTrainingConfig, Cell, ConfigError
from study.exchange import ldm
from study.tracking import Run

WEIGHTS = "diffusion_pytorch_model.safetensors"
Command = Callable[..., None]


@pytest.fixture
def study() -> Command:
    """Parse and run a subcommand."""
    parser = argparse.ArgumentParser()
    add_parsers(parser.add_subparsers(required=True))

    def run(*arguments: str | Path) -> None:
        options = parser.parse_args([str(argument) for argument in arguments])
        options.run(options)

    return run


@pytest.fixture
def finished(
    tiny: Autoencoder,
    make_arm: Callable[..., ArmConfig],
    make_training: Callable[..., AutoencoderTrainingConfig],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Cell:
    """An arm that two stages have finished, the second of them `evaluate_autoencoder`."""
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    cell = Cell(profile="lab", data="parquet", autoencoder="taesd", arm="eq", seed=0)
    parameters = {
        "autoencoder": {"weights": "weights/taesd", "published_scale": 1.0},
        "arm": make_arm(),
        "finetune_autoencoder": make_training(steps=77),
    }
    run = Run("finetune_autoencoder", cell, parameters)
    tiny.save(run.output())
    run.finish()
    run = Run("evaluate_autoencoder", cell, {})
    run.record("psnr_db", 31.5, n=16)
    run.record("latent_mean_channel_0", 0.5, n=16)
    run.record("latent_std_channel_0", 1.25, n=16)
    run.finish()
    return cell


def test_an_exported_autoencoder_is_the_fine_tuned_one(
    finished: Cell, tiny: Autoencoder, study: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    study("export-autoencoder", "lab-parquet-taesd-eq-0", paths.ROOT / "shared")
    assert capsys.readouterr().out == "shared: lab-parquet-taesd-eq-0 with model card\n"
    images = torch.rand(1, 3, 16, 16)
    loaded = load_autoencoder(paths.ROOT / "shared")
    assert torch.equal(loaded.encode(images).mean, tiny.encode(images).mean)
    card = (paths.ROOT / "shared" / "README.md").read_text()
    for fact in ("| steps | 77 |", "| psnr_db | 31.5 | 16 |", "| 0 | 0.5 | 1.25 |"):
        assert fact in card


def test_an_autoencoder_without_evaluation_is_exported_and_said_so(
    finished: Cell, study: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    paths.metrics("lab", "evaluate_autoencoder", finished.instance).unlink()
    study("export-autoencoder", "lab-parquet-taesd-eq-0", paths.ROOT / "shared")
    assert "not evaluated, so the card lacks quality" in capsys.readouterr().out
    assert "Not measured." in (paths.ROOT / "shared" / "README.md").read_text()


def test_an_unknown_instance_lists_the_known_ones(finished: Cell, study: Command) -> None:
    with pytest.raises(
        ConfigError,
        match=r"^lab-parquet-taesd-eq-1: .*; must be one of lab-parquet-taesd-eq-0$",
    ):
        study("export-autoencoder", "lab-parquet-taesd-eq-1", paths.ROOT / "shared")
    assert not (paths.ROOT / "shared").exists()


def test_a_profile_without_fine_tuned_autoencoders_is_named(finished: Cell, study: Command) -> None:
    with pytest.raises(ConfigError, match="profile 'other' has none"):
        study("export-autoencoder", "other-parquet-taesd-eq-0", paths.ROOT / "shared")


def test_a_converted_checkpoint_is_read_back(
    study: Command, kl: Autoencoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What `load_ldm` reads is tested with it.
    read: list[Path] = []
    monkeypatch.setattr(ldm, "load_ldm", lambda file: (read.append(file), kl)[1])
    study("convert-autoencoder", tmp_path / "last.ckpt", tmp_path / "weights")
    assert read == [tmp_path / "last.ckpt"]
    assert (tmp_path / "weights" / "config.json").is_file()
    weights = load_file(tmp_path / "weights" / WEIGHTS)
    assert weights.keys() == kl.model.state_dict().keys()
    assert all(torch.equal(value, kl.model.state_dict()[name]) for name, value in weights.items())


def test_a_conversion_overwrites_nothing(study: Command, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(ConfigError, match="must be a new or an empty folder"):
        study("convert-autoencoder", tmp_path / "last.ckpt", tmp_path)


def test_converting_a_missing_checkpoint_makes_no_folder(study: Command, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"last\.ckpt: no such file"):
        study("convert-autoencoder", tmp_path / "last.ckpt", tmp_path / "weights")
    assert not (tmp_path / "weights").exists()
