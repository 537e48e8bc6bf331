"""The recipes of `docs/recipes.md`, executed as they stand there."""

import importlib
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from study import paths
from study.autoencoders.models import Autoencoder, load_autoencoder
from study.autoencoders.objective import draw_branch
from study.autoencoders.weights import check_weights
from study.config import (
    ArmConfig,
    AutoencoderConfig,
    BackboneConfig,
    EvaluateAutoencoderConfig,
    LatentSpec,
    SamplerConfig,
    generator_group,
    load_group,
    plain,
)
from study.config import generator as parameters
from study.evaluation import extensions
from study.evaluation.analysis import analyse
from study.generators.backbone import Transformer
from study.generators.common import Batch, SampleNoise
from study.generators.objectives import build_objective
from study.grid import expand, read_profile

TEXT = (Path(__file__).parents[1] / "docs" / "recipes.md").read_text()
FILES = dict(re.findall(r"^`([\w/.]+)`:\n\n```\w+\n(.*?)```", TEXT, re.MULTILINE | re.DOTALL))
LINES = re.findall(r"^The registry line, .*?```python\n(.*?)```", TEXT, re.MULTILINE | re.DOTALL)


@pytest.fixture
def follow(params: Path, tmp_path: Path) -> Iterator[Callable[[str], Any]]:
    """Write a recipe's file; a module is imported from where it was written."""
    added: list[tuple[Any, str]] = []

    def write(name: str) -> Any:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(FILES[name])
        if file.suffix != ".py":
            return None
        package = sys.modules[".".join(Path(name).parts[:-1])]
        package.__path__.append(str(file.parent))
        added.append((package, str(file.parent)))
        return importlib.import_module(".".join(Path(name).with_suffix("").parts))

    yield write
    for package, folder in added:
        package.__path__.remove(folder)
        for name in [n for n in sys.modules if n.startswith(package.__name__)]:
            if str(getattr(sys.modules[name], "__file__", "")).startswith(folder):
                del sys.modules[name]


def test_the_page_has_the_recipes_that_are_executed():
    assert set(FILES) == {
        "params/arm/eq_half_turns.yaml",
        "params/autoencoder/mine.yaml",
        "study/generators/denoiser.py",
        "params/generator/denoiser.yaml",
        "scripts/published_samples.py",
        "study/evaluation/kurtosis.py",
    }
    assert len(LINES) == 2


def test_an_arm_is_one_file(follow: Callable[[str], Any], edit: Callable[..., None]):
    follow("params/arm/eq_half_turns.yaml")
    arm, base = (load_group(ArmConfig, "arm", name) for name in ("eq_half_turns", "eq"))
    ours, theirs = plain(arm), plain(base)
    assert {key for key in ours if ours[key] != theirs[key]} == {"scale"}
    draws = [draw_branch(arm, 8, torch.Generator().manual_seed(i)).equivariant for i in range(40)]
    turned = [draw for draw in draws if draw is not None]
    assert turned
    assert all((tau.height, tau.width) == (8, 8) for tau in turned)
    profile = paths.PARAMS / "profile" / "smoke.yaml"
    edit(profile, "grid", "autoencoders", "kl_small", value=["plain", "eq", "eq_half_turns"])
    grid = expand("smoke", read_profile("smoke"))
    assert "smoke-shapes-kl_small-eq_half_turns-0" in grid["finetune_autoencoder"]


def test_an_autoencoder_is_one_file(
    follow: Callable[[str], Any], kl: Autoencoder, images: np.ndarray, tmp_path: Path
):
    follow("params/autoencoder/mine.yaml")
    kl.save(tmp_path / "weights" / "mine")
    config = load_group(AutoencoderConfig, "autoencoder", "mine")
    check_weights(config)
    source = config.weights_source()
    assert source is not None
    loaded = load_autoencoder(source, config.family).eval()
    x = torch.zeros(1, 3, 16, 16)
    assert torch.equal(loaded.encode(x).mean, kl.encode(x).mean)


def test_a_generator_is_one_module_and_one_file(
    follow: Callable[[str], Any],
    monkeypatch: pytest.MonkeyPatch,
    backbone: BackboneConfig,
    spec: LatentSpec,
    awaken: Callable[[nn.Module], nn.Module],
):
    module = follow("study/generators/denoiser.py")
    follow("params/generator/denoiser.yaml")
    registry: dict[str, str] = {}
    exec(LINES[0], {"EXTENSIONS": registry})
    for name, value in registry.items():
        monkeypatch.setitem(parameters.EXTENSIONS, name, value)
    config = generator_group("denoiser")
    assert isinstance(config, module.Config)
    objective = build_objective(config)
    network = awaken(objective.build(backbone, spec))
    latents = torch.randn(4, spec.channels, spec.side, spec.side)
    batch = Batch(latents=latents, tokens=None, labels=torch.arange(4), images=None)
    terms = objective.terms(network, batch, torch.Generator().manual_seed(0))
    assert terms.keys() == objective.weights.keys()
    sum(terms.values()).backward()  # type: ignore[union-attr]
    assert all(weight.grad is not None for weight in network.parameters())
    sampler = load_group(SamplerConfig, "sampler", "heun")
    noise = SampleNoise(0, [0, 1], torch.device("cpu"))
    with torch.inference_mode():
        labels = torch.zeros(2, dtype=torch.long)
        drawn = objective.sample(network, spec, labels, noise, sampler, 3)
    assert drawn.shape == (2, spec.channels, spec.side, spec.side)
    assert drawn.isfinite().all()


def test_a_generator_of_ones_own_is_checked_like_the_others(
    follow: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch, edit: Callable[..., None]
):
    from study.config import ConfigError
    from study.preflight import check_instances

    follow("study/generators/denoiser.py")
    follow("params/generator/denoiser.yaml")
    monkeypatch.setitem(parameters.EXTENSIONS, "denoiser", "study.generators.denoiser")
    profile = paths.PARAMS / "profile" / "smoke.yaml"
    entry = {"generator": "denoiser", "autoencoder": "kl_small", "arms": ["plain", "eq"]}
    entry |= {"backbone": "Ti_2", "sampler": "heun", "scaling": "standardised"}
    edit(profile, "grid", "generators", value=[entry])
    grid = expand("smoke", read_profile("smoke"))
    check_instances({"profile": "smoke", **grid})
    assert "smoke-shapes-kl_small-eq-0-denoiser-standardised" in grid["evaluate_generator"]
    edit(profile, "grid", "generators", 0, "sampler", value="ddpm")
    with pytest.raises(ConfigError, match="must be one of euler, heun for generator denoiser"):
        check_instances({"profile": "smoke", **expand("smoke", read_profile("smoke"))})


def test_published_weights_give_samples(
    monkeypatch: pytest.MonkeyPatch, awaken: Callable[[nn.Module], nn.Module], tmp_path: Path
):
    theirs = Transformer(load_group(BackboneConfig, "backbone", "Ti_2"), 4, 8, 32, 1000)
    (tmp_path / "weights").mkdir()
    torch.save({"ema": awaken(theirs).state_dict()}, tmp_path / "weights" / "SiT-XL-2-256.pt")
    script = FILES["scripts/published_samples.py"]
    for published, small in (('"XL_2"', '"Ti_2"'), ('.pt"), 250', '.pt"), 2')):
        assert script.count(published) == 1
        script = script.replace(published, small)
    monkeypatch.chdir(tmp_path)
    made: dict[str, Any] = {}
    exec(script, made)
    assert made["latents"].shape == (4, 4, 32, 32)
    assert made["latents"].isfinite().all()


def test_a_metric_is_one_module(
    follow: Callable[[str], Any],
    monkeypatch: pytest.MonkeyPatch,
    kl: Autoencoder,
    images: np.ndarray,
):
    follow("study/evaluation/kurtosis.py")
    registry: list[str] = []
    exec(LINES[1], {"EXTENSIONS": registry})
    monkeypatch.setattr(extensions, "EXTENSIONS", registry)
    settings = EvaluateAutoencoderConfig(
        num_images=16, batch_size=8, scales=[0.5], intrinsic_dimension_images=[16]
    )
    found = {result.metric: result.value for result in analyse(kl, images, settings).results}
    assert np.isfinite(found["latent_kurtosis"])
