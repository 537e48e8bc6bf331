"""An evaluation that was interrupted measures what an undisturbed one does, bit for bit."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from study.autoencoders.models import Autoencoder
from study.config import EvaluateAutoencoderConfig, Family
from study.evaluation import autoencoder as autoencoder_module
from study.evaluation.analysis import analyse
from study.evaluation.comparison import Judges
from study.evaluation.features import FeatureExtractor
from study.evaluation.passes import Gathered
from study.keeper import Keeper, State


class Stopping(Keeper):
    """Ends the process after so many saves."""

    def __init__(self, folder: Path, saves: int) -> None:
        super().__init__(folder, every_s=0)
        self.saves = saves

    def save(self, state: State) -> None:
        super().save(state)
        self.saves -= 1
        if not self.saves:
            raise InterruptedError


@pytest.mark.parametrize("family", list(Family))
@pytest.mark.parametrize("stops", [[1], [3], [2, 1, 1]])
def test_an_interrupted_analysis_measures_the_same(
    make_autoencoder: Callable[[Family], Autoencoder],
    images: np.ndarray,
    settings: EvaluateAutoencoderConfig,
    judges: Judges,
    tmp_path: Path,
    family: Family,
    stops: list[int],
) -> None:
    autoencoder = make_autoencoder(family)
    undisturbed = analyse(autoencoder, images, settings, judges)
    for saves in stops:
        keeper = Stopping(tmp_path / "a" / "b", saves)
        with pytest.raises(InterruptedError):
            analyse(autoencoder, images, settings, judges, keeper=keeper)
    found = analyse(autoencoder, images, settings, judges, keeper=Keeper(tmp_path / "a" / "b"))
    assert found.results == undisturbed.results
    assert list(found.spectrum_rows()) == list(undisturbed.spectrum_rows())
    assert np.array_equal(found.reconstructions[0], undisturbed.reconstructions[0])


def test_an_analysis_goes_on_where_it_was(
    kl: Autoencoder,
    images: np.ndarray,
    settings: EvaluateAutoencoderConfig,
    judges: Judges,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(InterruptedError):
        analyse(kl, images, settings, judges, keeper=Stopping(tmp_path / "a" / "b", 3))
    seen: list[str] = []
    encode = autoencoder_module.encode

    def listening(autoencoder: Autoencoder, batch: torch.Tensor, what: str) -> object:
        seen.append(what)
        return encode(autoencoder, batch, what)

    monkeypatch.setattr("study.evaluation.analysis.encode", listening)
    analyse(kl, images, settings, judges, keeper=Keeper(tmp_path / "a" / "b"))
    assert seen == ["batch 2"]


@pytest.mark.parametrize("stop", [1, 2, 4])
def test_features_gathered_in_two_goes_are_those_of_one(
    extractor: FeatureExtractor, images: np.ndarray, tmp_path: Path, stop: int
) -> None:
    batches = torch.from_numpy(images).split(5)
    keeper = Keeper(tmp_path / "a" / "b")
    whole, first = Gathered(extractor, 7), Gathered(extractor, 7)
    for batch in batches:
        whole.add(batch)
    for batch in batches[:stop]:
        first.add(batch)
    keeper.save({"gathered": first.state()})
    state = keeper.restore()
    assert state is not None
    second = Gathered(extractor, 7, state["gathered"])
    assert second.batches == stop
    for batch in batches[stop:]:
        second.add(batch)
    for name in ("vectors", "spatial", "logits"):
        ours, theirs = (getattr(each.features(), name) for each in (second, whole))
        assert ours.dtype == theirs.dtype
        assert np.array_equal(ours, theirs)
    assert torch.equal(second.shown, torch.from_numpy(images[:7]))
