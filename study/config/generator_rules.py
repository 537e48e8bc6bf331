"""What parts ask of one another, of optional packages and of files; needs no torch."""

from importlib.util import find_spec

from study import paths
from study.config.checks import ConfigError
from study.config.evaluation import SamplerConfig, SamplingMethod
from study.config.generator import AlignmentTarget, BackboneConfig, REPAConfig


def check_target(name: str, config: REPAConfig) -> None:
    """Check that what DINOv2 needs is there.

    Args:
        name: file of group `generator`.
        config: its content.

    Raises:
        ConfigError: timm is not installed, or a local weights file is missing.
    """
    if config.target is AlignmentTarget.in_domain:
        return
    file, weights = f"params/generator/{name}.yaml", str(config.target_weights)
    if find_spec("timm") is None:
        rule = "needs package timm; install extra features"
        raise ConfigError(f"{file}: target = {config.target.value!r}: {rule}")
    if weights.startswith("weights/"):
        require_file(f"{file}: target_weights", weights)


def check_grids(
    network: str, widths: list[int], backbone: BackboneConfig, factor: int, autoencoder: str
) -> None:
    """Check that the in-domain target has one feature for each token.

    Args:
        network: file of group `network`, of role target.
        widths: of its levels, each of which halves the side.
        backbone: of the generator.
        factor: image side over latent side.
        autoencoder: whose latents they are.

    Raises:
        ConfigError: the grids differ.
    """
    ours, theirs = factor * backbone.patch_size, 2 ** len(widths)
    if ours != theirs:
        raise ConfigError(
            f"params/network/{network}.yaml: widths = {widths}: must give a feature every {ours} "
            f"pixels, not {theirs}: factor {factor} of {autoencoder}, patch size "
            f"{backbone.patch_size}"
        )


def check_sampler(name: str, config: SamplerConfig) -> None:
    """Check that a sampler finds its package.

    Args:
        name: file of group `sampler`.
        config: its content.

    Raises:
        ConfigError: torchdiffeq is not installed.
    """
    if config.method is SamplingMethod.dopri5 and find_spec("torchdiffeq") is None:
        rule = "needs package torchdiffeq; install extra ode"
        raise ConfigError(f"params/sampler/{name}.yaml: method = 'dopri5': {rule}")


def require_lpips(field: str, path: str | None) -> None:
    """Check that LPIPS finds its package and its weights.

    Args:
        field: file and field that name the weights.
        path: relative to the repository; None: LPIPS is not used.

    Raises:
        ConfigError: one of them is missing.
    """
    if path is not None and find_spec("lpips") is None:
        raise ConfigError(f"{field} = {path!r}: needs package lpips; install extra perceptual")
    require_file(field, path)


def require_file(field: str, path: str | None) -> None:
    """Check that a file of weights is there.

    Args:
        field: file and field that name it.
        path: relative to the repository; None: none is needed.

    Raises:
        ConfigError: it is missing.
    """
    if path is not None and not (paths.ROOT / path).is_file():
        raise ConfigError(f"{field} = {path!r}: no such file; put the weights there")
