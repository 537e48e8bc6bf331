"""One training step of a generator: forward, loss, backward, clip, optimiser.

Nothing here waits for the device.
"""

from collections.abc import Callable
from dataclasses import fields, replace

import torch
from torch import Tensor, nn

from study.acceleration import autocast, compile_parts, kernels
from study.config import TrainGeneratorConfig
from study.generators.backbone import Block, FinalLayer
from study.generators.common import Batch, GeneratorObjective
from study.generators.maskgit import MaskGIT
from study.generators.token_backbone import TokenBlock

Update = Callable[[Batch, torch.Generator], dict[str, Tensor]]

ORDINARY_STEPS = 3
"""Before a step is recorded as a graph: compilation, tables and workspaces happen in them."""


def compiled_parts(network: nn.Module) -> list[nn.Module]:
    """What is compiled of a generator: its blocks, which are alike, and its last layer."""
    kinds = (Block, TokenBlock, FinalLayer)
    return [module for module in network.modules() if isinstance(module, kinds)]


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
        graph = config.cuda_graph and device.type == "cuda"
        self.optimiser = torch.optim.AdamW(
            network.parameters(),
            config.learning_rate,
            weight_decay=config.weight_decay,
            fused=True,
            capturable=graph,
        )
        self.rate = torch.tensor(config.learning_rate, device=device) if graph else None
        self.update: Update = Recorded(self._update, device) if graph else self._update
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
        if self.rate is not None:
            self.rate.fill_(rate)
        for group in self.optimiser.param_groups:
            group["lr"] = rate if self.rate is None else self.rate
        with kernels(self.device, self.config.deterministic):
            return self.update(batch, numbers)

    def _update(self, batch: Batch, numbers: torch.Generator) -> dict[str, Tensor]:
        parts = micro_batches(batch, self.config.micro_batch_size)
        weights, values = self.objective.weights, []
        self.optimiser.zero_grad(set_to_none=True)
        for part in parts:
            with autocast(self.device, self.config.precision):
                terms = self.objective.terms(self.network, part, numbers)
            loss = torch.stack([weights[name] * term for name, term in terms.items()]).sum()
            (loss / len(parts)).backward()
            values.append({"loss": loss, **terms})
        parameters = self.network.parameters()
        norm = nn.utils.clip_grad_norm_(parameters, self.config.gradient_clip)
        self.optimiser.step()
        means = {n: torch.stack([v[n].detach() for v in values]).mean(0) for n in values[0]}
        return {"loss": means.pop("loss"), "gradient_norm": norm, **means}


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


class Recorded:
    """An update that is recorded as a CUDA graph after its first calls, and then replayed.

    Random numbers are those of the update itself: the graph follows the generator's state.
    """

    def __init__(self, update: Update, device: torch.device) -> None:
        self.update, self.stream, self.calls = update, torch.cuda.Stream(device), 0
        self.graph = torch.cuda.CUDAGraph()

    def __call__(self, batch: Batch, numbers: torch.Generator) -> dict[str, Tensor]:
        """What the update returns; overwritten by the next call."""
        if self.calls < ORDINARY_STEPS:
            self.calls += 1
            self.stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self.stream):
                values = self.update(batch, numbers)
            torch.cuda.current_stream().wait_stream(self.stream)
            return values
        if self.calls == ORDINARY_STEPS:
            self.calls += 1
            self.batch = replace(batch, **{k: v.clone() for k, v in _tensors(batch).items()})
            self.graph.register_generator_state(numbers)
            with torch.cuda.graph(self.graph, stream=self.stream):
                self.values = self.update(self.batch, numbers)
        for name, value in _tensors(batch).items():
            getattr(self.batch, name).copy_(value)
        self.graph.replay()
        return self.values
