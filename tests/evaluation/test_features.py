import json
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional
from torch_fidelity import feature_extractor_inceptionv3 as fidelity

from study import paths
from study.config import ConfigError, EvaluationConfig, Extractor, NetworkConfig, Role, StudyError
from study.data.store import to_float
from study.evaluation.features import FeatureExtractor, load_extractor
from study.evaluation.networks.in_domain import InDomainNetwork, save_network

CPU = torch.device("cpu")
IN_DOMAIN = EvaluationConfig(
    extractor=Extractor.in_domain,
    weights=None,
    lpips=None,
    adm_reference=None,
    kid_subset_size=10,
    allow_few_samples=True,
)
SMALL = NetworkConfig(role=Role.extractor, architecture="plain", widths=[4, 8], features=8, seed=0)
INCEPTION = replace(IN_DOMAIN, extractor=Extractor.inception, weights="weights/inception.pth")


@pytest.fixture
def extractor(network: InDomainNetwork) -> FeatureExtractor:
    return FeatureExtractor("in_domain", network, CPU)


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where Inception's weights belong."""
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    (tmp_path / "weights").mkdir()
    return tmp_path / "weights" / "inception.pth"


def test_features_are_the_networks(
    extractor: FeatureExtractor, network: InDomainNetwork, images: np.ndarray
) -> None:
    found = extractor(torch.from_numpy(images))
    expected = network.features(to_float(torch.from_numpy(images)))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected.numpy())


@pytest.mark.parametrize("size", [1, 5])
def test_batch_size_does_not_change_features(
    extractor: FeatureExtractor, images: np.ndarray, size: int
) -> None:
    every = torch.from_numpy(images)
    whole, parts = extractor.all([every]), extractor.all(every.split(size))
    for name in ("vectors", "spatial", "logits"):
        ours, theirs = getattr(parts, name), getattr(whole, name)
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_one_pass_gives_vectors_logits_and_features_with_a_place(
    extractor: FeatureExtractor, network: InDomainNetwork, images: np.ndarray
) -> None:
    found = extractor.everything(torch.from_numpy(images))
    pixels = to_float(torch.from_numpy(images))
    np.testing.assert_array_equal(found.vectors, network.features(pixels).numpy())
    np.testing.assert_array_equal(found.logits, network(pixels).numpy())
    # The grid is 8 x 8: averaged to 4 x 4, one channel is already more than the 8 dimensions.
    expected = functional.avg_pool2d(network.grid(pixels), 2)[:, 0].flatten(1)
    np.testing.assert_allclose(found.spatial, expected.numpy(), rtol=1e-6)


def test_spatial_features_see_where_vectors_do_not(
    extractor: FeatureExtractor, images: np.ndarray
) -> None:
    half = images.copy()
    half[:, :, :8], half[:, :, 8:] = 0, 255
    ours, theirs = (
        extractor.everything(torch.from_numpy(np.ascontiguousarray(each)))
        for each in (half, half[:, :, ::-1])
    )
    top = ours.spatial.reshape(16, 4, 4)[:, 0], theirs.spatial.reshape(16, 4, 4)[:, -1]
    assert not np.allclose(ours.spatial, theirs.spatial, rtol=0.05)
    assert np.abs(top[0] - top[1]).mean() < np.abs(ours.spatial - theirs.spatial).mean()


def test_an_empty_set_is_refused(extractor: FeatureExtractor) -> None:
    with pytest.raises(StudyError, match="features of no image"):
        extractor.all([])


def test_a_feature_that_is_not_finite_is_refused(
    extractor: FeatureExtractor, network: InDomainNetwork, images: np.ndarray
) -> None:
    assert network.embed.bias is not None
    network.embed.bias.fill_(torch.inf)
    with pytest.raises(StudyError, match="in_domain: a feature is not finite"):
        extractor.all([torch.from_numpy(images)])


def test_the_in_domain_network_is_loaded(
    network: InDomainNetwork, images: np.ndarray, tmp_path: Path
) -> None:
    save_network(network, SMALL, 4, tmp_path)
    loaded = load_extractor(IN_DOMAIN, tmp_path, CPU)
    assert loaded.name == "in_domain"
    assert loaded(torch.from_numpy(images)).shape == (16, 8)
    assert loaded.everything(torch.from_numpy(images))[:5].logits.shape == (5, 4)


@pytest.mark.usefixtures("weights")
def test_missing_inception_weights_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"weights/inception\.pth: no such file"):
        load_extractor(INCEPTION, tmp_path, CPU)


class Evil:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path("/nowhere/at/all"),)  # type: ignore[return-value]


def test_a_pickle_is_refused(weights: Path, tmp_path: Path) -> None:
    with weights.open("wb") as file:
        torch.save({"a": Evil()}, file, pickle_module=pickle)
    with pytest.raises(ConfigError, match=r"weights/inception\.pth: must be torch-fidelity's"):
        load_extractor(INCEPTION, tmp_path, CPU)


GARBAGE = {
    "nothing": b"",
    "text": b"<html>not found</html>",
    "numbers": bytes(range(256)) * 40,
    "half an archive": b"PK\x03\x04" + bytes(500),
    "a header without tensors": (9).to_bytes(8, "little") + b'{"a": []}',
    "json of another kind": b"[1, 2]",
}


@pytest.mark.parametrize("content", GARBAGE.values(), ids=GARBAGE)
def test_garbage_is_named_in_one_line(
    network: InDomainNetwork, weights: Path, tmp_path: Path, content: bytes
) -> None:
    weights.write_bytes(content)
    refused(INCEPTION, tmp_path)
    for name in ("network.json", "network.safetensors"):
        save_network(network, SMALL, 4, tmp_path)
        (tmp_path / name).write_bytes(content)
        refused(IN_DOMAIN, tmp_path)


def test_tensors_of_another_network_are_named_in_one_line(
    network: InDomainNetwork, weights: Path, tmp_path: Path
) -> None:
    torch.save(network.state_dict(), weights)
    refused(INCEPTION, tmp_path)
    save_network(network, SMALL, 4, tmp_path)
    (tmp_path / "network.json").write_text(json.dumps({"architecture": "no such", "widths": [1]}))
    refused(IN_DOMAIN, tmp_path)
    save_network(network, replace(SMALL, widths=[8, 4]), 4, tmp_path)
    refused(IN_DOMAIN, tmp_path)


def refused(config: EvaluationConfig, folder: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_extractor(config, folder, CPU)
    (line,) = str(caught.value).splitlines()
    assert len(line) < 400


def test_inception_takes_uint8_images_of_any_size(
    weights: Path, tmp_path: Path, images: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "inception-v3-compat"
    with monkeypatch.context() as patch:
        patch.setattr(fidelity, "load_state_dict_from_url", lambda *_, **__: {})
        cls = fidelity.FeatureExtractorInceptionV3
        patch.setattr(cls, "load_state_dict", lambda *_: None)
        random = cls(name, ["2048"])
    torch.save(random.state_dict(), weights)
    extractor = load_extractor(INCEPTION, tmp_path, CPU)
    assert extractor.name == "inception"
    features = extractor(torch.from_numpy(images[:2]))
    assert features.shape == (2, 2048)
    grids = []
    random.Mixed_6d.branch1x1.register_forward_hook(lambda *passed: grids.append(passed[2]))
    (expected,) = random(torch.from_numpy(images[:2]))
    np.testing.assert_allclose(features, expected.numpy(), rtol=1e-5)
    found = extractor.everything(torch.from_numpy(images[:2]))
    assert found.logits.shape == (2, 1008)
    weight = random.fc.weight.T
    np.testing.assert_allclose(found.logits, (expected @ weight).numpy(), rtol=1e-3, atol=1e-5)
    # ADM: the first 7 channels of that convolution, channels last.
    assert found.spatial.shape == (2, 17 * 17 * 7)
    spatial = grids[0].permute(0, 2, 3, 1)[..., :7].flatten(1)
    np.testing.assert_allclose(found.spatial, spatial.numpy(), rtol=1e-5, atol=1e-7)
