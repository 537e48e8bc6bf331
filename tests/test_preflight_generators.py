"""What a generator needs beside its parameters is missed before anything runs."""

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from study import paths
from study.config import ConfigError
from study.config.generator_rules import check_grids, check_sampler, check_target
from study.grid import expand, manifest_file, read_profile, write_manifests
from study.preflight import check_inputs, check_instances

Edit = Callable[..., None]
SMOKE = "params/profile/smoke.yaml"


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Make a package look as if it were not installed."""

    def hide(package: str) -> None:
        find = importlib.util.find_spec
        monkeypatch.setattr(
            "study.config.generator_rules.find_spec",
            lambda name: None if name == package else find(name),
        )

    return hide


@pytest.fixture
def entry(params: Path, edit: Edit) -> Callable[..., None]:
    """Give profile smoke one generator, SiT with changes."""

    def make(**changes: str) -> None:
        sit = {
            "generator": "sit",
            "autoencoder": "kl_small",
            "arms": ["eq"],
            "backbone": "Ti_2",
            "sampler": "heun",
            "scaling": "standardised",
        }
        edit(params / "profile" / "smoke.yaml", "grid", "generators", value=[sit | changes])

    return make


def check() -> None:
    grid = read_profile("smoke")
    check_instances(expand("smoke", grid))
    check_inputs("smoke", grid)


def refused() -> str:
    with pytest.raises(ConfigError) as caught:
        check()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_sampler_without_its_package_is_refused(
    entry: Callable[..., None], without: Callable[[str], None]
) -> None:
    without("torchdiffeq")
    entry(sampler="dopri5")
    expected = "params/sampler/dopri5.yaml: method = 'dopri5': needs package torchdiffeq"
    assert refused().startswith(expected)


def test_dinov2_without_its_package_is_refused(
    entry: Callable[..., None], without: Callable[[str], None]
) -> None:
    without("timm")
    entry(generator="repa_dinov2")
    expected = "params/generator/repa_dinov2.yaml: target = 'dinov2_base': needs package timm"
    assert refused().startswith(expected)


def test_dinov2_without_its_weights_is_refused(entry: Callable[..., None]) -> None:
    pytest.importorskip("timm")
    entry(generator="repa_dinov2")
    given = "target_weights = 'weights/dinov2_vitb14.safetensors'"
    assert (
        refused()
        == f"params/generator/repa_dinov2.yaml: {given}: no such file; put the weights there"
    )


def test_a_hub_id_is_not_looked_for_on_the_disk(
    params: Path, edit: Edit, entry: Callable[..., None]
) -> None:
    pytest.importorskip("timm")
    entry(generator="repa_dinov2")
    file = params / "generator" / "repa_dinov2.yaml"
    edit(file, "target_weights", value="timm/vit_base_patch14_dinov2.lvd142m")
    check()


def test_raw_weights_must_be_kept(params: Path, edit: Edit, entry: Callable[..., None]) -> None:
    entry()
    edit(params / "sampler" / "heun.yaml", "weights", value="raw")
    check()
    edit(params / "profile" / "smoke.yaml", "train_generator", "raw_weights", value=False)
    needed = f"needs train_generator.raw_weights true in {SMOKE}"
    assert refused() == f"params/sampler/heun.yaml: weights = 'raw': {needed}"


def test_the_target_has_one_feature_for_each_token(
    params: Path, edit: Edit, entry: Callable[..., None]
) -> None:
    entry(generator="repa")
    edit(params / "network" / "target_small.yaml", "widths", value=[48, 96])
    expected = (
        "params/network/target_small.yaml: widths = [48, 96]: must give a feature every 8 pixels, "
        "not 4: factor 4 of kl_small, patch size 2"
    )
    assert refused() == expected


@pytest.mark.parametrize("generator", ["sit", "repa_dinov2"])
def test_only_the_studys_own_target_is_trained(generator: str, entry: Callable[..., None]) -> None:
    entry(generator=generator)
    roles = {
        item["role"] for item in expand("smoke", read_profile("smoke"))["train_network"].values()
    }
    assert roles == {"extractor", "perceptual", "extractor_self_supervised"}
    entry(generator="repa")
    assert len(expand("smoke", read_profile("smoke"))["train_network"]) == 4


def test_local_weights_of_the_target_get_a_manifest(entry: Callable[..., None]) -> None:
    entry(generator="repa_dinov2")
    grid = read_profile("smoke")
    name = "smoke-shapes-kl_small-eq-0-repa_dinov2-standardised"
    waiting = expand("smoke", grid)["train_generator"][name]["source"]
    assert waiting == "outputs/smoke/check_study/smoke"
    (paths.ROOT / "weights").mkdir()
    (paths.ROOT / "weights" / "dinov2_vitb14.safetensors").write_bytes(b"12345")
    write_manifests(grid)
    manifest = json.loads(manifest_file("generator", "repa_dinov2").read_text())
    assert manifest["path"] == "weights/dinov2_vitb14.safetensors"
    assert manifest["size"] == 5
    source = expand("smoke", grid)["train_generator"][name]["source"]
    assert source == "params/inputs/generator-repa_dinov2.json"


def test_an_unknown_generator_is_named(
    params: Path, edit: Edit, entry: Callable[..., None]
) -> None:
    entry(generator="nope")
    with pytest.raises(
        ConfigError, match=r"grid\.generators\[0\]\.generator = 'nope': must be one"
    ):
        read_profile("smoke")


def test_rules_let_good_parts_pass() -> None:
    from study.config import (
        BackboneConfig,
        REPAConfig,
        SamplerConfig,
        generator_group,
        load_group,
    )

    own = generator_group("repa")
    assert isinstance(own, REPAConfig)
    check_target("repa", own)
    check_sampler("heun", load_group(SamplerConfig, "sampler", "heun"))
    backbone = load_group(BackboneConfig, "backbone", "S_2")
    check_grids("target_base", [1, 2, 3, 4], backbone, 8, "taesd")
