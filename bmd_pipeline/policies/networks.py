"""Multilayer perceptrons, the denoiser built on one, and what networks need: normalisation, averaging, Gaussians."""

import copy
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bmd_pipeline.config.schema import PolicyConfig, ResidualNetworkConfig, UNetConfig

# ---- Diagonal Gaussians over vectors ----

HALF_LOG_TWO_PI = 0.5 * math.log(2.0 * math.pi)


def gaussian_log_prob(x: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """log N(x; mean, diag exp(2·log_std)) in nats, each (..., dim), summed over the last axis."""
    standard = (x - mean) * (-log_std).exp()
    return (-0.5 * standard.square() - log_std - HALF_LOG_TWO_PI).sum(dim=-1)


def gaussian_kl(mean: Tensor, other: Tensor, log_std: Tensor) -> Tensor:
    """KL divergence in nats of two diagonal Gaussians of one log_std, each (..., dim), summed over the last axis."""
    return 0.5 * ((mean - other) * (-log_std).exp()).square().sum(dim=-1)


def gaussian_entropy(log_std: Tensor) -> Tensor:
    """Entropy in nats of a diagonal Gaussian with log_std (..., dim), summed over the last axis."""
    return (log_std + 0.5 + HALF_LOG_TWO_PI).sum(dim=-1)


def draw_gaussian(mean: Tensor, log_std: Tensor, generator: torch.Generator) -> Tensor:
    """A draw from N(mean, diag exp(2·log_std)), shaped as the mean."""
    return mean + log_std.exp() * torch.randn(mean.shape, generator=generator, device=mean.device)


# ---- Per-dimension standardisation that lives inside the checkpoint of the network it belongs to ----

STD_FLOOR = 1e-5
"""A dimension that moves less than this is constant: it is centred but not scaled, or noise would explode."""


class Normaliser(nn.Module):
    """Maps values (..., dim) to zero mean and unit standard deviation, and back."""

    mean: Tensor
    std: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("std", torch.ones(dim))

    @torch.no_grad()
    def fit(self, values: Tensor) -> None:
        """Takes mean and standard deviation from data (N, dim), N >= 1."""
        std, mean = torch.std_mean(values.double(), dim=0, correction=0)
        self.mean.copy_(mean)
        self.std.copy_(torch.where(std < STD_FLOOR, torch.ones_like(std), std))

    def forward(self, values: Tensor) -> Tensor:
        """Normalises values (..., dim)."""
        return (values - self.mean) / self.std

    def inverse(self, values: Tensor) -> Tensor:
        """Undoes `forward`."""
        return values * self.std + self.mean


# ---- A step of training, and the exponential moving average of the weights that steps lead to ----


def descend(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """Takes one step down the gradient of a loss ()."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()


Module = TypeVar("Module", bound=nn.Module)


class EMA(Generic[Module]):
    """Follows a network: average ← decay·average + (1 - decay)·weights after every step.

    The decay is in [0, 1). Early on it is smaller, (1 + n) / (10 + n) after n updates, so that the average does not
    hang on to the random start.
    """

    def __init__(self, module: Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.average = copy.deepcopy(module).requires_grad_(False)
        self._average: list[Tensor] = list(self.average.parameters())
        self._source: list[Tensor] = list(module.parameters())

    @torch.no_grad()
    def update(self) -> None:
        """Takes one step towards the current weights."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_(self._average, self._source, 1.0 - decay)
        self.updates += 1


# ---- Multilayer perceptrons, and the denoiser built on one ----

ACTIVATIONS: dict[str, type[nn.Module]] = {"silu": nn.SiLU, "relu": nn.ReLU, "mish": nn.Mish, "tanh": nn.Tanh}
"""By the name that a config's `activation` gives them."""
TIME_FEATURES = 16


def make_mlp(sizes: Sequence[int], activation: str, *, last_scale: float | None = None) -> nn.Sequential:
    """Linear layers between the given sizes, with the activation between them but not after the last.

    `last_scale` multiplies the weights that the last layer starts with, and takes its bias away, so that its output
    starts near 0.
    """
    layers: list[nn.Module] = []
    for fan_in, fan_out in itertools.pairwise(sizes):
        layers += [nn.Linear(fan_in, fan_out), ACTIVATIONS[activation]()]
    if last_scale is not None:
        last = layers[-2]  # the activation after it is dropped below
        assert isinstance(last, nn.Linear)
        with torch.no_grad():
            last.weight.mul_(last_scale)
            last.bias.zero_()
    return nn.Sequential(*layers[:-1])


def require_values(widths: Sequence[int], tensors: Mapping[str, Tensor]) -> None:
    """Raises `ValueError`, before a network with layers of these widths is built, if a file's tensors don't fill it."""
    needed = sum(fan_in * fan_out for fan_in, fan_out in itertools.pairwise(widths))
    if needed > (stored := sum(tensor.numel() for tensor in tensors.values())):
        raise ValueError(f"settings of {needed} weights beside a file of {stored}")


def count_code_inputs(num_codes: int) -> int:
    """Width of `code_inputs` for K mode codes."""
    return num_codes if num_codes > 1 else 0


def code_inputs(code: Tensor, num_codes: int) -> Tensor:
    """Mode codes (B,) as networks are told them: one-hot (B, K), or (B, 0) where K = 1, since that one says nothing."""
    width = count_code_inputs(num_codes)
    return F.one_hot(code, width).float() if width else torch.zeros(len(code), 0, device=code.device)


def time_features(denoising_steps: int) -> Tensor:
    """Sine and cosine features (denoising_steps, TIME_FEATURES) of every diffusion step."""
    slowest = math.log(max(denoising_steps, 20))
    rates = torch.exp(-torch.linspace(0.0, slowest, TIME_FEATURES // 2))
    angles = torch.arange(denoising_steps)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)


Modulation = Sequence[tuple[Tensor, Tensor]]
"""Scale and shift (B, width) of each hidden layer, as a code asks for."""


class Denoiser(nn.Module):
    """MLP of the noisy sample, the condition, the diffusion step and, if it has any, a mode code.

    The first layer sees [sample, condition, time features]. It is small beside the others: computing shares of it once
    for a whole denoising chain would cost more in passes over its output.

    A code z scales and shifts every hidden layer before its nonlinearity, h·(1 + scale[z]) + shift[z]. The tables
    start at zero, where the network answers as if it had none (ours). A network without codes has `num_codes` 0.

    Source: feature-wise linear modulation, Perez et al. 2018 (arXiv 1709.07871).
    """

    features: Tensor

    def __init__(
        self,
        noise_dim: int,
        cond_dim: int,
        hidden_sizes: Sequence[int],
        activation: str,
        denoising_steps: int,
        num_codes: int = 0,
    ) -> None:
        super().__init__()
        self.cond_dim = cond_dim
        self.first = nn.Linear(noise_dim + cond_dim + TIME_FEATURES, hidden_sizes[0])
        self.activation = ACTIVATIONS[activation]()
        self.rest = nn.ModuleList(
            nn.Linear(fan_in, fan_out) for fan_in, fan_out in itertools.pairwise([*hidden_sizes, noise_dim])
        )
        widths = hidden_sizes if num_codes else ()
        self.code_tables = nn.ParameterList(torch.zeros(num_codes, 2 * width) for width in widths)  # scale, shift
        # Follows from the settings, so no part of the checkpoint.
        self.register_buffer("features", time_features(denoising_steps), persistent=False)

    def embed_cond(self, cond: Tensor) -> Tensor:
        """The condition's share of the context: (B, cond_dim) to (B, cond_dim + TIME_FEATURES)."""
        return F.pad(cond, (0, TIME_FEATURES))

    def embed_time(self) -> Tensor:
        """The share of every diffusion step: (denoising_steps, cond_dim + TIME_FEATURES)."""
        return F.pad(self.features, (self.cond_dim, 0))

    def embed_code(self, code: Tensor) -> Modulation:
        """What the codes (B,) int64 do to each hidden layer; nothing for a network without codes."""
        halves = [table.chunk(2, dim=1) for table in self.code_tables]
        return [(F.embedding(code, 1.0 + scale), F.embedding(code, shift)) for scale, shift in halves]

    def forward(self, x: Tensor, context: Tensor, modulation: Modulation = ()) -> Tensor:
        """Predicts from the noisy sample x (B, noise_dim), in its shape.

        `context` is the sum of the embedded condition and time. `modulation` is from `embed_code`; an empty
        one leaves every layer as it is.
        """
        h: Tensor = self.first(torch.cat([x, context], dim=1))
        for index, layer in enumerate(self.rest):
            if modulation:
                scale, shift = modulation[index]
                h = torch.addcmul(shift, h, scale)
            h = layer(self.activation(h))
        return h

    @torch.no_grad()
    def stretch_codes(self, factor: float) -> None:
        """Multiplies each code's deviation from the mean of all codes by a factor, which strengthens its effect."""
        for table in self.code_tables:
            mean = table.mean(dim=0, keepdim=True)
            table.copy_(mean + factor * (table - mean))


SLOWEST_RATE = 1e4
"""By how much the slowest sine of a learnt time embedding is slower than the fastest."""
NORM_EPSILON = 1e-6


def wide_time_features(denoising_steps: int, width: int) -> Tensor:
    """Sine and cosine features (denoising_steps, width) of every diffusion step, as Diffuser has them."""
    rates = torch.exp(-torch.arange(width // 2) * math.log(SLOWEST_RATE) / (width // 2 - 1))
    angles = torch.arange(denoising_steps)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class ResidualDenoiser(Denoiser):
    """A `Denoiser` whose hidden layers after the first stand in pairs, each with a connection around it.

    A block adds two layers to h, each after norm and nonlinearity: h + W₂·a(n(W₁·a(n(h)))). The time goes through a
    small network, and the condition may. A code scales and shifts what each layer takes in, after the norm.

    Source: DPPO (arXiv 2409.00588), after D3IL (arXiv 2402.14606); the time features are those of Diffuser.
    """

    def __init__(
        self,
        noise_dim: int,
        cond_dim: int,
        hidden_sizes: Sequence[int],
        activation: str,
        denoising_steps: int,
        num_codes: int,
        config: ResidualNetworkConfig,
    ) -> None:
        sizes, width = (cond_dim, *config.cond_sizes), config.time_dim
        super().__init__(noise_dim, sizes[-1], hidden_sizes, activation, denoising_steps, num_codes)
        self.first = nn.Linear(noise_dim + sizes[-1] + width, hidden_sizes[0])
        self.cond_network = make_mlp(sizes, activation) if config.cond_sizes else nn.Identity()
        self.time_network = make_mlp((width, 2 * width, width), "mish")
        norms = hidden_sizes[1:] if config.layer_norm else ()
        self.norms = nn.ModuleList(nn.LayerNorm(width, eps=NORM_EPSILON) for width in norms)
        self.register_buffer("features", wide_time_features(denoising_steps, width), persistent=False)

    def embed_cond(self, cond: Tensor) -> Tensor:
        """The condition's share of the context, through its network if it has one."""
        return F.pad(self.cond_network(cond), (0, self.features.shape[1]))

    def embed_time(self) -> Tensor:
        """The share of every diffusion step, through the network of the time."""
        return F.pad(self.time_network(self.features), (self.cond_dim, 0))

    def forward(self, x: Tensor, context: Tensor, modulation: Modulation = ()) -> Tensor:
        """As `Denoiser.forward`."""

        def take_in(index: int, h: Tensor) -> Tensor:
            if index < len(self.norms):
                h = self.norms[index](h)
            if modulation:
                scale, shift = modulation[index]
                h = torch.addcmul(shift, h, scale)
            return h

        h: Tensor = self.first(torch.cat([x, context], dim=1))
        for index in range(0, len(self.rest) - 1, 2):
            inner = self.rest[index](self.activation(take_in(index, h)))
            h = h + self.rest[index + 1](self.activation(take_in(index + 1, inner)))
        output: Tensor = self.rest[-1](take_in(len(self.rest) - 1, h))
        return output


NORM_GROUPS = 8
"""Groups of channels that a U-Net normalises together."""


def _convolve(fan_in: int, fan_out: int, kernel_size: int) -> nn.Sequential:
    convolution = nn.Conv1d(fan_in, fan_out, kernel_size, padding=kernel_size // 2)
    return nn.Sequential(convolution, nn.GroupNorm(NORM_GROUPS, fan_out), nn.Mish())


class ConditionedBlock(nn.Module):
    """Two convolutions with a connection around them; between them the context scales and shifts each channel."""

    def __init__(self, fan_in: int, fan_out: int, context_dim: int, kernel_size: int) -> None:
        super().__init__()
        self.conv1 = _convolve(fan_in, fan_out, kernel_size)
        self.film = nn.Linear(context_dim, 2 * fan_out)
        self.conv2 = _convolve(fan_out, fan_out, kernel_size)
        self.around = nn.Conv1d(fan_in, fan_out, 1) if fan_in != fan_out else nn.Identity()

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Channels x (B, fan_in, steps) under a context (B, context_dim), as (B, fan_out, steps)."""
        scale, shift = self.film(F.mish(context))[..., None].chunk(2, dim=1)
        output: Tensor = self.conv2(torch.addcmul(shift, self.conv1(x), scale)) + self.around(x)
        return output


class ResolutionLevel(nn.Module):
    """Two blocks at one resolution, and what leads to the next."""

    def __init__(self, first: ConditionedBlock, second: ConditionedBlock, resample: nn.Module) -> None:
        super().__init__()
        self.first, self.second, self.resample = first, second, resample

    def forward(self, x: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Channels of this resolution and of the next; x and context as in `ConditionedBlock`."""
        h = self.second(self.first(x, context), context)
        return h, self.resample(h)


class UNetDenoiser(Denoiser):
    """A `Denoiser` that convolves over the steps of the chunk, at several resolutions.

    It sees observations themselves, the oldest first, and no differences. A code scales and shifts the context of
    condition and time.

    Source: diffusion policy (Chi et al. 2023, arXiv 2303.04137) as in LeRobot, after Janner et al. 2022.
    """

    def __init__(self, config: PolicyConfig, unet: UNetConfig, noise_dim: int, cond_dim: int, num_codes: int) -> None:
        nn.Module.__init__(self)  # none of the perceptron's layers
        self.n_obs_steps, self.past_steps = config.n_obs_steps, unet.past_steps
        self.action_dim, self.cond_dim, self.time_dim = noise_dim // config.horizon, cond_dim, unet.time_dim
        context, sizes = unet.time_dim + cond_dim, unet.down_sizes

        def block(fan_in: int, fan_out: int) -> ConditionedBlock:
            return ConditionedBlock(fan_in, fan_out, context, unet.kernel_size)

        self.time_network = make_mlp((unet.time_dim, 4 * unet.time_dim, unet.time_dim), "mish")
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for index, (fan_in, fan_out) in enumerate(itertools.pairwise((self.action_dim, *sizes))):
            halve = nn.Conv1d(fan_out, fan_out, 3, 2, 1) if index < len(sizes) - 1 else nn.Identity()
            self.down.append(ResolutionLevel(block(fan_in, fan_out), block(fan_out, fan_out), halve))
        self.middle = nn.ModuleList(block(sizes[-1], sizes[-1]) for _ in range(2))
        for fan_out, fan_in in itertools.pairwise(sizes):
            double = nn.ConvTranspose1d(fan_out, fan_out, 4, 2, 1)
            self.up.insert(0, ResolutionLevel(block(2 * fan_in, fan_out), block(fan_out, fan_out), double))
        self.last = nn.Sequential(
            _convolve(sizes[0], sizes[0], unet.kernel_size), nn.Conv1d(sizes[0], self.action_dim, 1)
        )
        self.code_tables = nn.ParameterList(torch.zeros(num_codes, 2 * context) for _ in range(min(num_codes, 1)))
        features = wide_time_features(config.denoising_steps, unet.time_dim)
        self.register_buffer("features", features, persistent=False)

    def embed_cond(self, cond: Tensor) -> Tensor:
        """The condition's share of the context: (B, cond_dim) to (B, time_dim + cond_dim)."""
        latest, *changes = cond.chunk(self.n_obs_steps, dim=1)
        frames = [*(latest - change for change in reversed(changes)), latest]
        return F.pad(torch.cat(frames, dim=1), (self.time_dim, 0))

    def embed_time(self) -> Tensor:
        """The share of every diffusion step: (denoising_steps, time_dim + cond_dim)."""
        return F.pad(self.time_network(self.features), (0, self.cond_dim))

    def forward(self, x: Tensor, context: Tensor, modulation: Modulation = ()) -> Tensor:
        """As `Denoiser.forward`."""
        if modulation:
            scale, shift = modulation[0]
            context = torch.addcmul(shift, context, scale)
        steps = x.reshape(len(x), -1, self.action_dim).roll(self.past_steps, dims=1)
        h, skipped = steps.transpose(1, 2), []
        for level in self.down:
            seen, h = level(h, context)
            skipped.append(seen)
        for block in self.middle:
            h = block(h, context)
        for level in self.up:
            _, h = level(torch.cat([h, skipped.pop()], dim=1), context)
        output: Tensor = self.last(h)
        return output.transpose(1, 2).roll(-self.past_steps, dims=1).flatten(1)


def make_denoiser(config: PolicyConfig, noise_dim: int, cond_dim: int, num_codes: int = 0) -> Denoiser:
    """The denoiser that a policy's settings describe, untrained."""
    if config.unet is not None:
        return UNetDenoiser(config, config.unet, noise_dim, cond_dim, num_codes)
    shape = (noise_dim, cond_dim, config.hidden_sizes, config.activation, config.denoising_steps, num_codes)
    if config.residual_network is None:
        return Denoiser(*shape)
    return ResidualDenoiser(*shape, config.residual_network)


def require_denoiser(config: PolicyConfig, noise_dim: int, cond_dim: int, tensors: Mapping[str, Tensor]) -> None:
    """As `require_values`, of the denoiser that a policy's settings describe."""
    if config.unet is not None:
        require_values((config.unet.time_dim + cond_dim, *config.unet.down_sizes), tensors)
        for size in config.unet.down_sizes:
            require_values((size * config.unet.kernel_size, size), tensors)
        return
    cond_sizes = (cond_dim, *(config.residual_network.cond_sizes if config.residual_network else ()))
    require_values(cond_sizes, tensors)
    require_values((noise_dim + cond_sizes[-1], *config.hidden_sizes), tensors)
