"""Subcommands of `study` that turn autoencoders into folders for others, and others' into ours."""

import argparse
from pathlib import Path
from typing import Any

from study import paths
from study.config import ConfigError, DataConfig, Family, load_group


def add_parsers(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommands; each sets `run`, which takes the parsed options."""
    export = commands.add_parser(
        "export-autoencoder",
        help="write a fine-tuned autoencoder with a model card",
        description="Copy a fine-tuned autoencoder to a diffusers folder with a model card.",
        epilog="example: python -m study export-autoencoder lab-parquet-taesd-eq-0 ~/taesd-eq",
    )
    export.add_argument("instance", help="profile-data-autoencoder-arm-seed")
    export.add_argument("target", type=Path, help="folder to make")
    export.set_defaults(run=_export)
    inspect = commands.add_parser(
        "inspect-autoencoder",
        help="measure any diffusers autoencoder, without the pipeline",
        description="Print and save reconstruction, equivariance error and latent statistics of "
        "an autoencoder on held-out images. No network is trained, so there is no rFD; --lpips "
        "adds LPIPS.",
        epilog="example: python -m study inspect-autoencoder weights/taesd --data imagenet20_128 "
        "--size 128 --images 2000",
    )
    inspect.add_argument("source", help="diffusers folder, LDM checkpoint file, or hub id")
    inspect.add_argument("--data", required=True, help="a file of params/data, without .yaml")
    inspect.add_argument("--size", type=int, default=128, help="image side (default: 128)")
    inspect.add_argument("--images", type=int, default=1000, help="how many (default: 1000)")
    inspect.add_argument("--batch", type=int, default=50, help="images per call (default: 50)")
    inspect.add_argument(
        "--family", choices=[family.value for family in Family], help="of a hub id"
    )
    inspect.add_argument("--lpips", help="file of torchvision's VGG16 weights")
    inspect.add_argument("--output", type=Path, help="new folder (default: inspected/SOURCE)")
    inspect.set_defaults(run=_inspect)
    convert = commands.add_parser(
        "convert-autoencoder",
        help="turn an LDM checkpoint into weights for params/autoencoder",
        description="Convert a checkpoint of latent-diffusion's AutoencoderKL to diffusers format.",
        epilog="example: python -m study convert-autoencoder eq-vae-ldm.ckpt weights/eq_vae_ldm",
    )
    convert.add_argument("file", type=Path, help=".safetensors, or what torch.save writes")
    convert.add_argument("target", type=Path, help="folder to make")
    convert.set_defaults(run=_convert)


def _export(options: argparse.Namespace) -> None:
    from study.exchange.export import export

    profile = options.instance.partition("-")[0]
    finetuned = _metrics("finetune_autoencoder", options.instance)
    if finetuned is None:
        folder = paths.metrics(profile, "finetune_autoencoder", options.instance).parent
        known = ", ".join(sorted(file.stem for file in folder.glob("*.json")))
        rule = f"must be one of {known}" if known else f"profile {profile!r} has none"
        raise ConfigError(f"{options.instance}: no such fine-tuned autoencoder; {rule}")
    evaluated = _metrics("evaluate_autoencoder", options.instance)
    source = paths.outputs(profile, "finetune_autoencoder", options.instance)
    export(source, options.target, finetuned, evaluated)
    missing = "" if evaluated else "; not evaluated, so the card lacks quality and scaling"
    print(f"{paths.shown(options.target)}: {options.instance} with model card{missing}")


def _metrics(stage: str, instance: str) -> dict[str, Any] | None:
    from study.tracking import read_metrics

    file = paths.metrics(instance.partition("-")[0], stage, instance)
    return read_metrics(file) if file.is_file() else None


def _inspect(options: argparse.Namespace) -> None:
    from study.exchange.export import require_vacant
    from study.exchange.inspect import inspect, open_autoencoder, save, summary

    target = options.output or paths.ROOT / "inspected" / Path(options.source).stem
    require_vacant(target)
    family = Family(options.family) if options.family else None
    data = load_group(DataConfig, "data", options.data)
    autoencoder = open_autoencoder(options.source, family)
    analysis = inspect(
        autoencoder, data, options.size, options.images, options.batch, options.lpips
    )
    save(analysis, target, {"source": options.source, "data": options.data, "size": options.size})
    print(summary(analysis))
    print(f"{paths.shown(target)}: metrics.json, metrics.csv, spectra.csv and pictures")


def _convert(options: argparse.Namespace) -> None:
    from study.exchange.export import require_vacant
    from study.exchange.ldm import load_ldm

    require_vacant(options.target)
    autoencoder = load_ldm(options.file)
    autoencoder.save(options.target)
    size = f"factor {autoencoder.factor}, {autoencoder.channels} channels"
    print(f"{paths.shown(options.target)}: AutoencoderKL, {size}")
