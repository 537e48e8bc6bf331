import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from study.config import BackboneConfig, LatentSpec, MaskGITConfig, Objective, SamplerConfig
from study.generators.common import Batch, SampleNoise
from study.generators.halton import halton_order
from study.generators.maskgit import MaskGIT, categorical, gumbel, masked_share
from study.generators.token_backbone import TokenTransformer

CPU = torch.device("cpu")
AsModule = Callable[[Callable[..., Tensor]], nn.Module]
MakeSampler = Callable[..., SamplerConfig]


def maskgit(schedule: str = "cosine", label_smoothing: float = 0.1) -> MaskGIT:
    return MaskGIT(
        MaskGITConfig(
            objective=Objective.maskgit,
            schedule=schedule,
            label_smoothing=label_smoothing,
            dropout=0.0,
        )
    )


class Listening(TokenTransformer):
    """Remembers the tokens it sees and gives fixed logits."""

    logits: Tensor
    seen: Tensor

    def forward(
        self, tokens: Tensor, labels: Tensor, numbers: torch.Generator | None = None
    ) -> Tensor:
        self.seen = tokens
        return self.logits


@pytest.fixture
def listening(token_backbone: BackboneConfig) -> Listening:
    network = Listening(token_backbone, 16, 8, 4, dropout=0.0)
    torch.manual_seed(0)
    network.logits = torch.randn(6, 64, 16, requires_grad=True)
    return network


@pytest.fixture
def batch() -> Batch:
    tokens = torch.randint(16, (6, 64), generator=torch.Generator().manual_seed(1))
    return Batch(latents=None, tokens=tokens, labels=torch.zeros(6).long(), images=None)


@pytest.fixture
def record(
    as_module: AsModule, make_sampler: MakeSampler, token_spec: LatentSpec
) -> Callable[..., tuple[list[Tensor], Tensor]]:
    """Sample with random logits; gives the tokens before every step and the samples."""

    def run(
        num_steps: int, schedule: str = "cosine", method: str = "confidence"
    ) -> tuple[list[Tensor], Tensor]:
        seen: list[Tensor] = []

        def network(tokens: Tensor, labels: Tensor) -> Tensor:
            seen.append(tokens.clone())
            source = torch.Generator().manual_seed(len(seen))
            return torch.randn(len(tokens), 64, 16, generator=source)

        noise, labels = SampleNoise(0, [0, 1, 2], CPU), torch.zeros(3).long()
        samples = maskgit(schedule).sample(
            as_module(network), token_spec, labels, noise, make_sampler(method), num_steps
        )
        return seen, samples.flatten(1)

    return run


@pytest.mark.parametrize("schedule", ["cosine", "linear", "arccos"])
def test_all_tokens_are_masked_at_first_and_none_at_last(schedule: str) -> None:
    ends = masked_share(schedule, torch.tensor([0.0, 1.0]))
    torch.testing.assert_close(ends, torch.tensor([1.0, 0.0]))


def test_shares_halfway() -> None:
    half = torch.tensor(0.5)
    assert float(masked_share("cosine", half)) == pytest.approx(math.sqrt(0.5))
    assert float(masked_share("linear", half)) == 0.5
    assert float(masked_share("arccos", half)) == pytest.approx(2 / 3)


@pytest.mark.parametrize("num_steps", [1, 5, 8])
def test_masked_tokens_per_step_follow_the_cosine(
    num_steps: int, record: Callable[..., tuple[list[Tensor], Tensor]]
) -> None:
    seen, _ = record(num_steps)
    expected = [int(64 * math.cos(math.pi / 2 * k / num_steps)) for k in range(num_steps)]
    for sample in range(3):
        assert [int((tokens[sample] == 16).sum()) for tokens in seen] == expected


def test_masked_tokens_per_step_follow_the_line(
    record: Callable[..., tuple[list[Tensor], Tensor]],
) -> None:
    seen, _ = record(4, "linear")
    assert [int((tokens[0] == 16).sum()) for tokens in seen] == [64, 48, 32, 16]


@pytest.mark.parametrize("method", ["confidence", "halton"])
@pytest.mark.parametrize("schedule", ["cosine", "linear", "arccos"])
@pytest.mark.parametrize("num_steps", [1, 3, 100])
def test_no_mask_token_remains(
    num_steps: int, schedule: str, method: str, record: Callable[..., tuple[list[Tensor], Tensor]]
) -> None:
    _, samples = record(num_steps, schedule, method)
    assert samples.min() >= 0
    assert samples.max() < 16


@pytest.mark.parametrize("method", ["confidence", "halton"])
def test_known_tokens_never_change(
    method: str, record: Callable[..., tuple[list[Tensor], Tensor]]
) -> None:
    seen, samples = record(8, method=method)
    for tokens in seen:
        known = tokens != 16
        assert torch.equal(tokens[known], samples[known])


@pytest.mark.parametrize("num_steps", [1, 5, 8])
def test_halton_unmasks_the_next_positions_of_its_order(
    num_steps: int, record: Callable[..., tuple[list[Tensor], Tensor]]
) -> None:
    seen, _ = record(num_steps, method="halton")
    order = halton_order(8)
    for step, tokens in enumerate(seen):
        known = 64 - int(64 * math.cos(math.pi / 2 * step / num_steps))
        for sample in tokens:
            assert set((sample != 16).nonzero().flatten().tolist()) == set(order[:known].tolist())


@pytest.mark.parametrize("method", ["confidence", "halton"])
def test_every_step_unmasks_at_least_one_token(
    method: str, record: Callable[..., tuple[list[Tensor], Tensor]]
) -> None:
    # As published, of both: where the cosine would unmask none, one.
    seen, _ = record(64, method=method)
    assert [int((tokens[0] != 16).sum()) for tokens in seen] == [
        max(step, 64 - int(64 * math.cos(math.pi / 2 * step / 64))) for step in range(64)
    ]


def test_categorical_draws_invert_the_cumulative_distribution() -> None:
    logits = torch.tensor([0.25, 0.0, 0.5, 0.25]).log().expand(1, 7, 4)
    uniform = torch.tensor([[0.0, 0.24, 0.26, 0.5, 0.74, 0.76, 1 - 2**-24]])
    assert categorical(logits, uniform).tolist() == [[0, 0, 2, 2, 2, 3, 3]]


@pytest.mark.parametrize("method", ["confidence", "halton"])
def test_one_step_draws_from_the_networks_distribution(
    method: str, as_module: AsModule, make_sampler: MakeSampler, token_spec: LatentSpec
) -> None:
    chances = torch.arange(1, 17) / 136
    network = as_module(lambda tokens, labels: chances.log().expand(len(tokens), 64, 16))
    noise, labels = SampleNoise(0, list(range(64)), CPU), torch.zeros(64).long()
    sampler = make_sampler(method)
    samples = maskgit().sample(network, token_spec, labels, noise, sampler, 1)
    counts = torch.bincount(samples.flatten(), minlength=16)
    # Four standard deviations of a binomial count of 4096.
    assert ((counts - 4096 * chances).abs() < 4 * (4096 * chances).sqrt()).all()


def test_without_temperature_the_surest_tokens_are_kept(
    as_module: AsModule, make_sampler: MakeSampler, token_spec: LatentSpec
) -> None:
    # Position n is certain to within exp(-n): the first half of the positions is the surest.
    logits = torch.zeros(64, 16)
    logits[:, 3] = 40 - torch.arange(64) / 4
    seen: list[Tensor] = []

    def network(tokens: Tensor, labels: Tensor) -> Tensor:
        seen.append(tokens)
        return logits.expand(len(tokens), 64, 16)

    noise = SampleNoise(0, [0], CPU)
    sampler = make_sampler("confidence", temperature=0.0)
    method = maskgit("linear")
    method.sample(as_module(network), token_spec, torch.tensor([0]), noise, sampler, 2)
    assert (seen[1][0, 32:] == 16).sum() == 32


def test_confidence_sampling_equals_the_published_loop(
    as_module: AsModule, make_sampler: MakeSampler, token_spec: LatentSpec
) -> None:
    # MaskGIT's parallel_decode, sample by sample: positions differ in how sure the network is.
    source = torch.Generator().manual_seed(2)
    every = torch.randn(8, 3, 64, 16, generator=source) * torch.linspace(0.2, 6, 64)[:, None]
    noise, tokens = SampleNoise(0, [0, 1, 2], CPU), torch.full((3, 64), 16)
    for step, logits in enumerate(every):
        ratio = (step + 1) / 8
        drawn, kick = categorical(logits, noise.uniform((64,))), gumbel(noise.uniform((64,)))
        for row in range(3):
            unknown = tokens[row] == 16
            ids = torch.where(unknown, drawn[row], tokens[row])
            chances = logits[row].softmax(1)[torch.arange(64), ids].where(unknown, math.inf)
            confidence = chances.log() + 4.5 * (1 - ratio) * kick[row]
            left = int(64 * math.cos(math.pi / 2 * ratio))
            left = max(1, min(int(unknown.sum()) - 1, left))
            cut_off = confidence.sort().values[left]
            again = (confidence < cut_off) if step < 7 else torch.zeros(64, dtype=torch.bool)
            tokens[row] = torch.where(again, 16, ids)
    steps = iter(every)
    network = as_module(lambda tokens, labels: next(steps))
    sampler, labels = make_sampler("confidence"), torch.zeros(3).long()
    same = SampleNoise(0, [0, 1, 2], CPU)
    samples = maskgit().sample(network, token_spec, labels, same, sampler, 8)
    assert torch.equal(samples.flatten(1), tokens)


def test_guidance_extrapolates_logits(
    as_module: AsModule, make_sampler: MakeSampler, token_spec: LatentSpec
) -> None:
    # Class logits favour 5 over 7 by 100, the null class by 150: with scale 4 token 7 wins by 50.
    def network(tokens: Tensor, labels: Tensor) -> Tensor:
        favour = torch.where(labels == 4, 150.0, 100.0).view(-1, 1)
        logits = torch.full((len(tokens), 64, 16), -1e4)
        logits[..., 5], logits[..., 7] = favour, 0.0
        return logits

    for scale, winner in ((1.0, 5), (4.0, 7)):
        noise, sampler = SampleNoise(0, [0], CPU), make_sampler("confidence", cfg_scale=scale)
        samples = maskgit().sample(
            as_module(network), token_spec, torch.tensor([0]), noise, sampler, 2
        )
        assert (samples == winner).all()


def test_another_objectives_sampler_is_refused(
    as_module: AsModule, make_sampler: MakeSampler, token_spec: LatentSpec
) -> None:
    noise = SampleNoise(0, [0], CPU)
    with pytest.raises(ValueError, match="method = heun: must be confidence or halton"):
        maskgit().sample(
            as_module(lambda *_: torch.zeros(1)),
            token_spec,
            torch.tensor([0]),
            noise,
            make_sampler("heun"),
            2,
        )


def test_loss_is_the_cross_entropy_of_masked_tokens(
    listening: Listening, batch: Batch, numbers: torch.Generator
) -> None:
    assert batch.tokens is not None
    loss = maskgit(label_smoothing=0.2).terms(listening, batch, numbers)["cross_entropy"]
    masked = listening.seen == listening.mask_token
    assert torch.equal(listening.seen[~masked], batch.tokens[~masked])
    expected = functional.cross_entropy(
        listening.logits[masked], batch.tokens[masked], label_smoothing=0.2
    )
    torch.testing.assert_close(loss, expected)


def test_known_tokens_get_no_gradient(
    listening: Listening, batch: Batch, numbers: torch.Generator
) -> None:
    maskgit().terms(listening, batch, numbers)["cross_entropy"].backward()
    masked = listening.seen == listening.mask_token
    assert listening.logits.grad is not None
    assert torch.equal(listening.logits.grad.any(2), masked)


def test_the_masked_share_has_the_mean_of_the_cosine(
    listening: Listening, batch: Batch, numbers: torch.Generator
) -> None:
    shares = []
    for _ in range(500):
        maskgit().terms(listening, batch, numbers)
        shares.append((listening.seen == listening.mask_token).float().mean(1))
    every = torch.cat(shares)
    # E[cos(pi u / 2)] = 2 / pi, rounded up to whole tokens: plus half a token.
    assert float(every.mean()) == pytest.approx(2 / math.pi + 0.5 / 64, abs=0.022)
    assert float(every.min()) >= 1 / 64


def test_tokens_are_required(listening: Listening, batch: Batch, numbers: torch.Generator) -> None:
    batch.tokens = None
    with pytest.raises(ValueError, match="needs a token transformer and tokens"):
        maskgit().terms(listening, batch, numbers)


def test_gumbel_noise_has_the_standard_moments() -> None:
    noise = gumbel(torch.rand(100_000, generator=torch.Generator().manual_seed(0)))
    assert float(noise.mean()) == pytest.approx(0.5772, abs=0.02)
    assert float(noise.var()) == pytest.approx(math.pi**2 / 6, abs=0.04)


def test_gumbel_noise_is_finite_at_the_ends() -> None:
    assert gumbel(torch.tensor([0.0, 1.0])).isfinite().all()
