"""One training step of a generator: forward, loss, backward, clip, optimiser.

Nothing here waits for the device.
"""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import fields, replace

import torch
from torch import Tensor, nn

from study import distributed
from study.acceleration import autocast, compile_parts, kernels
from study.config import TrainGeneratorConfig
from study.generators import sharded
from study.generators.backbone import Block, FinalLayer
from study.generators.common import Batch, GeneratorObjective
from study.generators.maskgit import MaskGIT
from study.generators.token_backbone import TokenBlock
from study.recorded import Recorded, set_rate

ORDINARY_STEPS = 3
"""Before a step is recorded as a graph: compilation, tables and workspaces happen in them."""


def compiled_parts(network: nn.Module) -> list[nn.Module]:
    """What is compiled of a generator: its blocks, which are alike, and its last layer."""
    kinds = (Block, TokenBlock, FinalLayer)
    return [module for module in network.modules() if isinstance(module, kinds)]


class Terms(nn.Module):
    """Loss terms as a module of their own, whose gradients several processes average."""

    def __init__(self, network: nn.Module, objective: GeneratorObjective) -> None:
        super().__init__()
        self.network, self.objective = network, objective

    def forward(self, batch: Batch, numbers: torch.Generator) -> dict[str, Tensor]:
        """Unweighted terms of a batch."""
        return self.objective.terms(self.network, batch, numbers)


def replicated(terms: Terms, compiled: bool) -> nn.parallel.DistributedDataParallel:
    """Terms whose gradients are averaged over the processes while they are still computed."""
    if compiled:
        import torch._dynamo

        # Blocks are compiled one by one: there is nothing to split where a bucket is full.
        torch._dynamo.config.optimize_ddp = False  # pyright: ignore[reportAttributeAccessIssue]
    return nn.parallel.DistributedDataParallel(terms, gradient_as_bucket_view=True)


class Step:
    """Updates a network, in place, by one batch a call.

    Args:
        network: on its device.
        objective: loss terms and their weights.
        config: optimisation, precision, compilation.
        device: of the network.
    """

    def __init__(
        self,
        network: nn.Module,
        objective: GeneratorObjective,
        config: TrainGeneratorConfig,
        device: torch.device,
    ) -> None:
        self.network, self.objective, self.config, self.device = network, objective, config, device
        self.optimiser = torch.optim.AdamW(
            network.parameters(),
            config.learning_rate,
            weight_decay=config.weight_decay,
            fused=True,
            capturable=device.type == "cuda",
        )
        self.terms: nn.Module = Terms(network, objective)
        if distributed.world() > 1 and not sharded.wanted():
            self.terms = replicated(self.terms, config.compile)
        self.update = Recorded(self._update, device, config.cuda_graph, ORDINARY_STEPS)
        if config.compile:
            loss = [objective.loss] if isinstance(objective, MaskGIT) else []
            compile_parts([*compiled_parts(network), *loss])

    def __call__(self, batch: Batch, numbers: torch.Generator, rate: float) -> dict[str, Tensor]:
        """Loss terms, their weighted sum and the norm of the gradient before clipping.

        Args:
            batch: on the device.
            numbers: on the device; the same object at every call, seeded for this step.
            rate: learning rate.
        """
        set_rate(self.optimiser, rate)
        self.numbers, tensors = numbers, _tensors(batch)
        with kernels(self.device, self.config.deterministic):
            return self.update(tuple(tensors), *tensors.values(), numbers=numbers)

    def _update(self, names: tuple[str, ...], inputs: tuple[Tensor, ...]) -> dict[str, Tensor]:
        given = dict(zip(names, inputs, strict=True))
        batch = Batch(**{item.name: given.get(item.name) for item in fields(Batch)})  # type: ignore[arg-type]
        size = self.config.micro_batch_size
        parts = micro_batches(batch, size and size // distributed.world())
        weights, values = self.objective.weights, []
        self.optimiser.zero_grad(set_to_none=True)
        for number, part in enumerate(parts, start=1):
            with self._exchange(last=number == len(parts)):
                with autocast(self.device, self.config.precision):
                    terms = self.terms(part, self.numbers)
                loss = torch.stack([weights[name] * term for name, term in terms.items()]).sum()
                (loss / len(parts)).backward()
            values.append({"loss": loss, **terms})
        parameters = self.network.parameters()
        norm = nn.utils.clip_grad_norm_(parameters, self.config.gradient_clip)
        if sharded.wanted():
            norm = norm.full_tensor()  # pyright: ignore[reportAttributeAccessIssue]
        self.optimiser.step()
        means = {n: torch.stack([v[n].detach() for v in values]).mean(0) for n in values[0]}
        return {"loss": means.pop("loss"), "gradient_norm": norm, **means}

    def _exchange(self, last: bool) -> AbstractContextManager[None]:
        """Where gradients are summed up first, and exchanged with those of the last part only."""
        if sharded.wanted():
            self.network.set_requires_gradient_sync(last)  # pyright: ignore[reportCallIssue]
        ddp = nn.parallel.DistributedDataParallel
        if last or not isinstance(self.terms, ddp):
            return nullcontext()
        return self.terms.no_sync()


def micro_batches(batch: Batch, size: int | None) -> list[Batch]:
    """A batch in parts of `size` samples; None: in one."""
    count = 1 if size is None else len(batch.labels) // size
    if count == 1:
        return [batch]
    chunks = {name: value.chunk(count) for name, value in _tensors(batch).items()}
    return [
        replace(batch, **{name: parts[number] for name, parts in chunks.items()})
        for number in range(count)
    ]


def _tensors(batch: Batch) -> dict[str, Tensor]:
    values = {item.name: getattr(batch, item.name) for item in fields(batch)}
    return {name: value for name, value in values.items() if value is not None}
