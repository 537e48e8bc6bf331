import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from study.autoencoders.models import Autoencoder, create_autoencoder
from study.config import AutoencoderConfig, ConfigError, Family
from study.exchange.ldm import load_ldm

Weights = dict[str, Tensor]
Make = Callable[..., Autoencoder]


@pytest.fixture
def make() -> Make:
    """A small autoencoder; the same weights at every call."""

    def build(**changes: Any) -> Autoencoder:
        architecture = {
            "block_out_channels": [32, 64, 96],
            "layers_per_block": 1,
            "latent_channels": 3,
            **changes,
        }
        torch.manual_seed(0)
        autoencoder = create_autoencoder(
            AutoencoderConfig(
                family=Family.kl, weights=None, architecture=architecture, published_scale=1.0
            )
        )
        for parameter in autoencoder.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
        return autoencoder.eval()

    return build


def to_ldm(autoencoder: Autoencoder) -> Weights:
    """The weights under the names and shapes of latent-diffusion's `AutoencoderKL`."""
    weights = autoencoder.model.state_dict()
    last = len(autoencoder.model.config.block_out_channels) - 1
    names = (
        (r"conv_norm_out", "norm_out"),
        (r"conv_shortcut", "nin_shortcut"),
        (r"down_blocks\.(\d+)\.resnets\.(\d+)", r"down.\1.block.\2"),
        (r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample"),
        # latent-diffusion numbers the decoder's levels from fine to coarse.
        (r"up_blocks\.(\d+)\.resnets\.(\d+)", lambda m: f"up.{last - int(m[1])}.block.{m[2]}"),
        (r"up_blocks\.(\d+)\.upsamplers\.0", lambda m: f"up.{last - int(m[1])}.upsample"),
        (r"mid_block\.resnets\.(\d+)", lambda m: f"mid.block_{int(m[1]) + 1}"),
        (r"mid_block\.attentions\.0", "mid.attn_1"),
        (r"attn_1\.group_norm", "attn_1.norm"),
        (r"attn_1\.to_([qkv])", r"attn_1.\1"),
        (r"attn_1\.to_out\.0", "attn_1.proj_out"),
    )
    result = {}
    for name, value in weights.items():
        for pattern, replacement in names:
            name = re.sub(pattern, replacement, name)
        attends = re.search(r"attn_1\.(q|k|v|proj_out)\.weight", name)
        result[name] = value[:, :, None, None].clone() if attends else value
    return result


@pytest.fixture
def ldm(make: Make) -> Weights:
    return to_ldm(make())


def check_same(loaded: Autoencoder, original: Autoencoder) -> None:
    """Posterior and reconstruction are equal bit for bit."""
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.inference_mode():
        ours, theirs = loaded.encode(images), original.encode(images)
        assert ours.logvar is not None
        assert theirs.logvar is not None
        assert torch.equal(ours.mean, theirs.mean)
        assert torch.equal(ours.logvar, theirs.logvar)
        assert torch.equal(loaded.decode(ours.mean), original.decode(theirs.mean))
    assert not loaded.training


def test_the_names_are_those_of_latent_diffusion(ldm: Weights) -> None:
    # Names as in the kl-f8 checkpoint, spelt out: the renaming above must not be its own rule.
    for name, shape in {
        "encoder.down.1.block.0.nin_shortcut.weight": (64, 32, 1, 1),
        "encoder.down.0.downsample.conv.weight": (32, 32, 3, 3),
        "encoder.mid.block_1.norm1.weight": (96,),
        "encoder.mid.attn_1.q.weight": (96, 96, 1, 1),
        "decoder.mid.attn_1.proj_out.bias": (96,),
        "decoder.mid.attn_1.norm.weight": (96,),
        "decoder.up.2.block.1.conv1.weight": (96, 96, 3, 3),
        "decoder.up.0.block.0.nin_shortcut.weight": (32, 64, 1, 1),
        "decoder.up.1.upsample.conv.weight": (64, 64, 3, 3),
        "decoder.norm_out.weight": (32,),
        "quant_conv.weight": (6, 6, 1, 1),
        "post_quant_conv.weight": (3, 3, 1, 1),
    }.items():
        assert tuple(ldm[name].shape) == shape
    assert "decoder.up.0.upsample.conv.weight" not in ldm


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"block_out_channels": [32, 32], "layers_per_block": 2, "latent_channels": 4},
        {"block_out_channels": [32], "mid_block_add_attention": False},
    ],
    ids=["attention", "two layers", "no attention"],
)
def test_a_checkpoint_encodes_and_decodes_as_the_model_it_came_from(
    changes: dict[str, Any], make: Make, tmp_path: Path
) -> None:
    original = make(**changes)
    save_file(to_ldm(original), tmp_path / "model.safetensors")
    loaded = load_ldm(tmp_path / "model.safetensors")
    assert (loaded.factor, loaded.channels) == (original.factor, original.channels)
    check_same(loaded, original)


def test_the_configuration_is_stable_diffusions(ldm: Weights, tmp_path: Path) -> None:
    save_file(ldm, tmp_path / "model.safetensors")
    config = load_ldm(tmp_path / "model.safetensors").model.config
    assert (config.scaling_factor, config.sample_size, config.norm_num_groups) == (0.18215, 256, 32)


def test_a_training_checkpoint_is_read_without_loss_and_average(
    make: Make, ldm: Weights, tmp_path: Path
) -> None:
    beside = {"loss.discriminator.main.0.weight": torch.ones(3), "loss.logvar": torch.zeros(())}
    beside |= {"model_ema.encoderconv_inweight": torch.ones(2), "model_ema.decay": torch.ones(())}
    torch.save({"global_step": 7, "state_dict": ldm | beside}, tmp_path / "last.ckpt")
    check_same(load_ldm(tmp_path / "last.ckpt"), make())


def test_a_whole_diffusion_models_checkpoint_gives_its_first_stage(
    make: Make, ldm: Weights, tmp_path: Path
) -> None:
    content = {f"first_stage_model.{name}": value for name, value in ldm.items()}
    content["first_stage_model.loss.logvar"] = torch.zeros(())
    content["model.diffusion_model.out.2.bias"] = torch.ones(4)
    torch.save(content, tmp_path / "model.pt")
    check_same(load_ldm(tmp_path / "model.pt"), make())


def test_half_precision_is_read_in_single(make: Make, ldm: Weights, tmp_path: Path) -> None:
    save_file({name: v.half() for name, v in ldm.items()}, tmp_path / "model.safetensors")
    loaded = load_ldm(tmp_path / "model.safetensors")
    check_same(loaded, make().half().float())


@pytest.mark.parametrize(
    "name",
    ["encoder.down.1.attn.0.norm.weight", "quantize.embedding.weight", "encoder.down.1.block.5.x"],
)
def test_a_weight_without_a_place_is_refused(name: str, ldm: Weights, tmp_path: Path) -> None:
    save_file(ldm | {name: torch.ones(4)}, tmp_path / "model.safetensors")
    with pytest.raises(ConfigError, match=rf"model\.safetensors: unknown weight '{name}'; must"):
        load_ldm(tmp_path / "model.safetensors")


@pytest.mark.parametrize(
    ("dropped", "named"),
    [
        ("encoder.conv_in.weight", "encoder.conv_in.weight"),
        ("encoder.down.0.block.0.conv2.weight", "encoder.down.0.block.0.conv2.weight"),
        ("quant_conv.bias", "quant_conv.bias"),
        ("decoder.mid.attn_1.k.weight", "decoder.mid_block.attentions.0.to_k.weight"),
    ],
)
def test_a_missing_weight_is_named(dropped: str, named: str, ldm: Weights, tmp_path: Path) -> None:
    del ldm[dropped]
    save_file(ldm, tmp_path / "model.safetensors")
    with pytest.raises(ConfigError, match=rf"model\.safetensors: no weight (for )?'{named}'; must"):
        load_ldm(tmp_path / "model.safetensors")


def test_a_weight_of_another_shape_is_named(ldm: Weights, tmp_path: Path) -> None:
    # embed_dim other than z_channels: diffusers has no such autoencoder.
    ldm["post_quant_conv.weight"] = torch.ones(3, 5, 1, 1)
    save_file(ldm, tmp_path / "model.safetensors")
    text = r"'post_quant_conv\.weight' has shape \(3, 5, 1, 1\), not \(3, 3, 1, 1\)"
    with pytest.raises(ConfigError, match=text):
        load_ldm(tmp_path / "model.safetensors")


class Stranger:
    """An object that only pickle can store."""


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ({"state_dict": {}, "callbacks": Stranger()}, "holds pickled objects or is damaged"),
        ({"model": {"x": 1}}, "something else than tensors"),
        ([1, 2], "something else than tensors"),
        ({"state_dict": {}}, r"no weight 'encoder\.conv_in\.weight'"),
    ],
    ids=["objects", "nested", "list", "empty"],
)
def test_other_content_is_refused_in_one_line(content: Any, text: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "model.ckpt")
    with pytest.raises(ConfigError, match=text) as caught:
        load_ldm(tmp_path / "model.ckpt")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
@pytest.mark.parametrize("content", [b"", b"version https://git-lfs"])
def test_a_damaged_file_is_refused_in_one_line(suffix: str, content: bytes, tmp_path: Path) -> None:
    file = tmp_path / f"model{suffix}"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=rf"model\{suffix}: .*; must be an LDM") as caught:
        load_ldm(file)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"model\.ckpt: no such file"):
        load_ldm(tmp_path / "model.ckpt")
