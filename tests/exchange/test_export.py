import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from study.autoencoders.models import Autoencoder
from study.config import ArmConfig, AutoencoderTrainingConfig, ConfigError, Trainable, plain
from study.exchange.export import export, model_card, require_vacant

Metrics = dict[str, Any]


@pytest.fixture
def finetuned(
    make_arm: Callable[..., ArmConfig], make_training: Callable[..., AutoencoderTrainingConfig]
) -> Metrics:
    """Metrics of a fine-tuned autoencoder from the hub."""
    return {
        "stage": "finetune_autoencoder",
        "instance": "lab-birds-sd-eq-3",
        "cell": {"profile": "lab", "data": "birds", "autoencoder": "sd", "arm": "eq", "seed": 3},
        "parameters": {
            "autoencoder": {"weights": "someone/sd-vae", "published_scale": 0.25},
            "arm": plain(make_arm(equivariance_probability=0.375)),
            "finetune_autoencoder": plain(make_training(steps=7654, learning_rate=3e-5)),
        },
        "environment": {"commit": "0123456789ab"},
    }


def record(metric: str, value: float) -> Metrics:
    return {"metric": metric, "value": value, "n": 512}


@pytest.fixture
def evaluated() -> Metrics:
    records = [record("psnr_db", 27.25), record("rfd_in_domain", 1.5), record("latent_std", 9.75)]
    for channel in range(4):
        records.append(record(f"latent_mean_channel_{channel}", 0.125 + channel))
        records.append(record(f"latent_std_channel_{channel}", 2.0625 + channel))
    return {"records": records, "protocol": {"images": "first 512 held-out images"}}


@pytest.fixture
def source(autoencoder: Autoencoder, tmp_path: Path) -> Path:
    """A saved autoencoder of each family, with a file that is not part of it."""
    autoencoder.save(tmp_path / "source")
    (tmp_path / "source" / "study.json").write_text("{}")
    return tmp_path / "source"


def rows(card: str, heading: str) -> list[list[str]]:
    """Cells of the tables under a heading, without the lines of column names and alignment."""
    section = re.split(r"^## ", card, flags=re.M)
    (text,) = (part for part in section if part.startswith(heading))
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines][2:]


def test_weights_and_configuration_are_copied_byte_for_byte(
    source: Path, finetuned: Metrics, evaluated: Metrics, tmp_path: Path
) -> None:
    target = tmp_path / "deep" / "target"
    export(source, target, finetuned, evaluated)
    files = {file.name: file.read_bytes() for file in target.iterdir()}
    assert files.pop("README.md")
    assert sorted(files) == ["config.json", "diffusion_pytorch_model.safetensors"]
    assert all(content == (source / name).read_bytes() for name, content in files.items())


def test_the_cards_example_gives_the_latents(
    autoencoder: Autoencoder,
    source: Path,
    finetuned: Metrics,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    export(source, tmp_path / "target", finetuned, None)
    (code,) = re.findall(
        r"```python\n(.*?)```", (tmp_path / "target" / "README.md").read_text(), re.S
    )
    assert len(code.splitlines()) == 3
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"images": torch.rand(2, 3, 16, 16) * 2 - 1}
    with torch.inference_mode():
        exec(code, names)
        assert torch.equal(names["latents"], autoencoder.encode(names["images"]).mean)


def test_the_card_says_what_the_autoencoder_is(
    autoencoder: Autoencoder, finetuned: Metrics
) -> None:
    card = model_card(autoencoder, "x", finetuned, None)
    family = autoencoder.family.value
    assert f"(family {family}) with downsampling factor 2\nand 4 latent channels" in card
    assert ("quantised to 16 codes" in card) == (family == "vq")
    for fact in ("# lab-birds-sd-eq-3", "arm `eq`", "data: `birds`", "seed: 3", "0123456789ab"):
        assert fact in card


def test_the_header_names_the_model_on_the_hub(kl: Autoencoder, finetuned: Metrics) -> None:
    _, header, _ = model_card(kl, "x", finetuned, None).split("---\n", 2)
    assert yaml.safe_load(header) == {
        "library_name": "diffusers",
        "base_model": "someone/sd-vae",
        "tags": ["autoencoder", "eq-vae"],
    }


@pytest.mark.parametrize(
    ("weights", "shown"),
    [("weights/sd", "`weights/sd`"), (None, "trained from scratch in the study")],
)
def test_weights_that_are_not_on_the_hub_are_no_base_model(
    weights: str | None, shown: str, kl: Autoencoder, finetuned: Metrics
) -> None:
    finetuned["parameters"]["autoencoder"]["weights"] = weights
    card = model_card(kl, "x", finetuned, None)
    assert "base_model" not in yaml.safe_load(card.split("---\n")[1])
    assert f"- base weights: {shown}\n" in card


def test_measurements_stand_in_the_card(
    kl: Autoencoder, finetuned: Metrics, evaluated: Metrics
) -> None:
    card = model_card(kl, "x", finetuned, evaluated)
    assert rows(card, "Quality") == [
        ["psnr_db", "27.25", "512"],
        ["rfd_in_domain", "1.5", "512"],
        ["latent_std", "9.75", "512"],
    ]
    channels = [[str(i), f"{0.125 + i}", f"{2.0625 + i}"] for i in range(4)]
    assert rows(card, "Scaling") == channels
    assert "The factor published with the base weights is 0.25.\n" in card
    assert "- images: first 512 held-out images\n" in card


def test_what_was_not_measured_is_left_out_and_said(kl: Autoencoder, finetuned: Metrics) -> None:
    card = model_card(kl, "x", finetuned, None)
    assert rows(card, "Quality") == rows(card, "Scaling") == []
    assert "## Quality\n\nNot measured.\n" in card
    assert "Statistics of the latents were not measured.\n" in card


def test_every_parameter_of_arm_and_training_stands_in_the_card(
    kl: Autoencoder, finetuned: Metrics
) -> None:
    shown = rows(model_card(kl, "x", finetuned, None), "Training")
    parameters = finetuned["parameters"]
    names = [name for name, *_ in shown if name not in ("parameter", "---")]
    assert names == [*parameters["finetune_autoencoder"], *parameters["arm"]]
    for row in (
        ["steps", "7654"],
        ["learning_rate", "3e-05"],
        ["equivariance_probability", "0.375"],
        ["rotation", "true"],
        ["scale", "isotropic"],
    ):
        assert row in shown


def test_an_arm_that_trains_nothing_has_no_training(kl: Autoencoder, finetuned: Metrics) -> None:
    finetuned["parameters"]["arm"]["trainable"] = Trainable.nothing.value
    card = model_card(kl, "x", finetuned, None)
    assert "- training data: none, the base weights as they are\n" in card
    assert "7654" not in card
    assert ["trainable", "nothing"] in rows(card, "Training")


def test_a_folder_that_holds_something_is_not_overwritten(
    source: Path, finetuned: Metrics, tmp_path: Path
) -> None:
    target = tmp_path / "target"
    target.mkdir()
    (target / "README.md").write_text("mine")
    with pytest.raises(ConfigError, match=r"target: exists; must be a new or an empty folder"):
        export(source, target, finetuned, None)
    assert [file.read_text() for file in target.iterdir()] == ["mine"]


def test_a_file_is_no_target(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("mine")
    with pytest.raises(ConfigError, match="target: exists"):
        require_vacant(tmp_path / "target")


def test_an_empty_folder_is_a_target(tmp_path: Path) -> None:
    require_vacant(tmp_path)


def test_a_missing_source_leaves_no_target(finetuned: Metrics, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none/config\.json: no such file"):
        export(tmp_path / "none", tmp_path / "target", finetuned, None)
    assert not (tmp_path / "target").exists()
