"""A run that was interrupted leaves the files of one that was not, bit for bit."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from study.config import BackboneConfig, GeneratorConfig, Scaling, StudyError, TrainGeneratorConfig
from study.generators.objectives import build_objective
from study.generators.targets import InDomainTarget
from study.generators.train import train_generator
from study.keeper import Keeper
from study.latents import LatentCache

Log = dict[int, dict[str, float]]
Train = Callable[..., Log]


class Interrupted(Exception):
    """The process ended here."""


@pytest.fixture
def train(
    generators: dict[str, GeneratorConfig],
    target: InDomainTarget,
    latent_cache: LatentCache,
    token_cache: LatentCache,
    images: np.ndarray,
    backbone: BackboneConfig,
    token_backbone: BackboneConfig,
    make_run: Callable[..., TrainGeneratorConfig],
) -> Train:
    """Train into a folder, up to a step; what comes after a folder's files is its log."""

    def run(
        folder: Path,
        name: str = "sit",
        stop: int | None = None,
        keeper: Keeper | None = None,
        log: Log | None = None,
        spoil: Callable[[int], None] = lambda step: None,
    ) -> Log:
        def steps(span: range) -> Iterator[int]:
            for step in span:
                if step == stop:
                    raise Interrupted
                spoil(step)
                yield step

        tokens, log = name == "maskgit", {} if log is None else log
        train_generator(
            folder,
            build_objective(generators[name], target),
            token_cache if tokens else latent_cache,
            images,
            token_backbone if tokens else backbone,
            # 7 steps do not divide into the intervals of the log of 250.
            make_run(steps=7, checkpoints=[0.3, 0.6, 1.0], raw_weights=True),
            Scaling.standardised,
            0,
            torch.device("cpu"),
            log.__setitem__,
            steps,
            keeper,
        )
        return log

    return run


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.mark.parametrize("name", ["dit", "sit", "repa", "maskgit"])
@pytest.mark.parametrize("stops", [[2], [1, 5], [0, 3, 6]])
def test_an_interrupted_run_ends_as_an_undisturbed_one(
    train: Train, tmp_path: Path, name: str, stops: list[int]
) -> None:
    undisturbed, found = train(tmp_path / "a", name), {}
    for stop in stops:
        with pytest.raises(Interrupted):
            train(tmp_path / "b", name, stop, Keeper(tmp_path / "work" / "x", every_s=0), found)
        # DVC deletes outputs before a run; nothing of an unfinished one is there.
        assert not (tmp_path / "b").exists()
    train(tmp_path / "b", name, None, Keeper(tmp_path / "work" / "x", every_s=0), found)
    assert contents(tmp_path / "b") == contents(tmp_path / "a")
    assert found == undisturbed


def test_a_run_killed_after_its_last_step_delivers_its_checkpoints_again(
    train: Train, tmp_path: Path
) -> None:
    keeper = Keeper(tmp_path / "work" / "x", every_s=0)
    train(tmp_path / "a", keeper=keeper)
    before = contents(tmp_path / "a")
    for file in (tmp_path / "a").iterdir():
        file.unlink()
    train(tmp_path / "a", stop=0, keeper=Keeper(tmp_path / "work" / "x", every_s=0))
    assert contents(tmp_path / "a") == before


@pytest.mark.parametrize("damaged", [1, 2])
def test_a_run_whose_states_are_damaged_goes_on_from_what_is_left(
    train: Train, tmp_path: Path, damaged: int
) -> None:
    train(tmp_path / "a")
    folder = tmp_path / "work" / "x"
    with pytest.raises(Interrupted):
        train(tmp_path / "b", stop=5, keeper=Keeper(folder, every_s=0))
    for state in sorted(folder.glob("state-*.pt"))[-damaged:]:
        content = bytearray(state.read_bytes())
        content[len(content) // 3 :] = b"?" * 100
        state.write_bytes(content)
    steps: list[int] = []
    train(tmp_path / "b", keeper=Keeper(folder, every_s=0), spoil=steps.append)
    assert steps == list(range(3 if damaged == 1 else 0, 7))
    assert contents(tmp_path / "b") == contents(tmp_path / "a")


def test_a_state_that_is_not_finite_is_not_kept(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "work" / "x"

    def spoil(step: int) -> None:
        if step == 2:
            monkeypatch.setattr("torch.nn.utils.clip_grad_norm_", broken)

    def broken(parameters: Iterator[torch.Tensor], limit: float) -> torch.Tensor:
        for parameter in parameters:
            assert parameter.grad is not None
            parameter.grad.fill_(torch.nan)
        return torch.tensor(torch.nan)

    with pytest.raises(StudyError, match=r"step 3: gradient_norm = nan: must be finite"):
        train(tmp_path / "a", keeper=Keeper(folder, every_s=0), spoil=spoil)
    kept = Keeper(folder).restore()
    assert kept is not None
    assert kept["step"] == 2
    assert all(value.isfinite().all() for value in kept["network"].values())
