import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from study import paths
from study.autoencoders.models import Autoencoder
from study.autoencoders.weights import check_weights, digest_weights, local
from study.config import AutoencoderConfig, ConfigError, Family

CONFIG = AutoencoderConfig(
    family=Family.kl, weights="weights/mine", architecture={}, published_scale=1.0
)


@pytest.fixture
def folder(kl: Autoencoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """weights/mine with a whole autoencoder."""
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    kl.save(tmp_path / "weights" / "mine")
    return tmp_path / "weights" / "mine"


@pytest.mark.usefixtures("folder")
def test_a_whole_folder_passes() -> None:
    check_weights(CONFIG)


def test_a_missing_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    with pytest.raises(ConfigError, match="weights/mine: no such folder"):
        check_weights(CONFIG)


@pytest.mark.parametrize("name", ["config.json", "diffusion_pytorch_model.safetensors"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(ConfigError, match=f"weights/mine/{name}: missing"):
        check_weights(CONFIG)


@pytest.mark.usefixtures("folder")
def test_another_family_is_refused() -> None:
    with pytest.raises(ConfigError, match="'AutoencoderKL': must be 'VQModel' for family vq"):
        check_weights(replace(CONFIG, family=Family.vq))


@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_config_that_is_no_mapping_is_refused(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text)
    with pytest.raises(ConfigError, match=r"config\.json: not a JSON mapping"):
        check_weights(CONFIG)


def test_a_hub_id_is_not_local() -> None:
    config = replace(CONFIG, weights="someone/vae")
    assert not local(config)
    check_weights(config)
    assert config.weights_source() == "someone/vae"


def test_the_manifest_names_content(folder: Path) -> None:
    files = digest_weights(CONFIG)["files"]
    assert [file["name"] for file in files] == [
        "config.json",
        "diffusion_pytorch_model.safetensors",
    ]
    content = (folder / "config.json").read_bytes()
    assert files[0]["size"] == len(content)
    assert files[0]["sha256"] == hashlib.sha256(content).hexdigest()
