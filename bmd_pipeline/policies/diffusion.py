"""The diffusion policy: noise schedule, sampler, observation history, and a chunk of actions out."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bmd_pipeline.config.schema import PolicyConfig
from bmd_pipeline.policies.networks import Normaliser, make_denoiser

# ---- Noise schedules: how much of the clean chunk is left after each diffusion step ----
#
# x_t = sqrt(ᾱ_t)·x_0 + sqrt(1 - ᾱ_t)·ε for t = 0 … denoising_steps - 1, with ᾱ falling.

MIN_SIGNAL = 1e-3
"""ᾱ of the last step. Above zero, or an ε-predicting network could not tell the clean chunk there."""
MAX_SIGNAL = 0.9999
"""ᾱ before the first step. Below one, or the noise of the last denoising step would be divided by zero."""


MAX_BETA = 0.999
"""Largest β of the capped schedule."""


def make_alphas_cumprod(name: Literal["cosine", "linear", "cosine_capped"], denoising_steps: int) -> Tensor:
    """ᾱ of every diffusion step (denoising_steps,), float64, strictly falling, inside (MIN_SIGNAL, MAX_SIGNAL) but for
    `cosine_capped`.

    `cosine` is the schedule of Nichol & Dhariwal (2021), equation 17. `linear` is the continuous limit of
    the linear β schedule, β from 0.1 to 20 over unit time (Song et al. 2021, appendix C), so that it means
    the same for any number of steps. Both are squeezed, not clipped, so that no two steps are equal. `cosine_capped` is
    the cosine with β of at most MAX_BETA instead, as Diffuser, DPPO and diffusers have it.
    """
    time = torch.arange(1, denoising_steps + 1, dtype=torch.float64) / denoising_steps
    if name in ("cosine", "cosine_capped"):
        offset = torch.tensor(0.008, dtype=torch.float64)
        angle = (time + offset) / (1 + offset) * torch.pi / 2
        signal = (torch.cos(angle) / torch.cos(offset / (1 + offset) * torch.pi / 2)).square()
        if name == "cosine_capped":
            before = torch.cat([torch.ones(1, dtype=torch.float64), signal[:-1]])
            return torch.cumprod((signal / before).clamp(min=1.0 - MAX_BETA), dim=0)
    else:
        signal = torch.exp(-0.1 * time - 0.5 * (20.0 - 0.1) * time.square())
    return MIN_SIGNAL + (MAX_SIGNAL - MIN_SIGNAL) * signal


def ddim_timesteps(
    denoising_steps: int, ddim_steps: int, spacing: Literal["trailing", "leading"] = "trailing"
) -> tuple[int, ...]:
    """Evenly spaced diffusion steps for DDIM, from the noisiest down: 2 of 20 are (19, 9), leading ones (10, 0)."""
    if spacing == "leading":
        return tuple(i * (denoising_steps // ddim_steps) for i in reversed(range(ddim_steps)))
    return tuple(i * denoising_steps // ddim_steps - 1 for i in range(ddim_steps, 0, -1))


# ---- Denoising chains: DDIM and DDPM as one linear recursion ----
#
# Both samplers move from x_t to the next, less noisy x by
#
#     x' = x0_weight · x̂_0(x_t, t) + x_weight · x_t + std · ε
#
# with coefficients that are plain floats, computed once.

Denoise = Callable[[Tensor, int], Tensor]
"""x_t (B, noise_dim) and t to the predicted clean sample (B, noise_dim)."""


@dataclass(frozen=True)
class Sampler:
    """A sampler: one entry per denoising step, the noisiest first."""

    timesteps: tuple[int, ...]  # diffusion step t at which the denoiser is asked
    x0_weights: tuple[float, ...]  # of the predicted clean sample
    x_weights: tuple[float, ...]  # of the current sample
    stds: tuple[float, ...]  # standard deviation of the noise that is added

    def step_mean(self, x: Tensor, k: int, denoise: Denoise) -> Tensor:
        """Mean of the next sample at chain position k; x is (B, noise_dim)."""
        x0 = denoise(x, self.timesteps[k])
        if self.x_weights[k] == 0.0:
            return x0 if self.x0_weights[k] == 1.0 else self.x0_weights[k] * x0
        return torch.add(self.x0_weights[k] * x0, x, alpha=self.x_weights[k])

    def sample(self, noise: Tensor, denoise: Denoise, generator: torch.Generator | None = None) -> Tensor:
        """Runs the whole chain from noise (B, noise_dim).

        Raises:
            ValueError: the chain adds noise and no generator was given.
        """
        if generator is None and any(self.stds):
            raise ValueError("this sampler adds noise: pass a generator")
        x = noise
        for k, std in enumerate(self.stds):
            x = self.step_mean(x, k, denoise)
            if std > 0.0:
                draw = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
                x = torch.add(x, draw, alpha=std)
        return x


def make_ddim_sampler(alphas_cumprod: Tensor, timesteps: tuple[int, ...], eta: float = 0.0) -> Sampler:
    """DDIM over falling diffusion steps, with ᾱ (denoising_steps,).

    η in [0, 1] is the share of the posterior's standard deviation that every step adds: with 0 the sample is determined
    by the starting noise, with 1 over all steps it is DDPM (Ho, Jain & Abbeel 2020).

    Source: Song, Meng & Ermon (2021), equations 12 and 16; the last step returns x̂_0.
    """
    x0_weights, x_weights, stds = [], [], []
    for k, t in enumerate(timesteps):
        signal = float(alphas_cumprod[t])
        next_signal = float(alphas_cumprod[timesteps[k + 1]]) if k + 1 < len(timesteps) else 1.0
        std = eta * math.sqrt((1.0 - next_signal) / (1.0 - signal) * (1.0 - signal / next_signal))
        # ε̂ = (x - sqrt(ᾱ) x̂_0) / sqrt(1 - ᾱ) follows from the clipped x̂_0, so that a clip acts on both.
        kept = math.sqrt((1.0 - next_signal - std * std) / (1.0 - signal))
        x0_weights.append(math.sqrt(next_signal) - math.sqrt(signal) * kept)
        x_weights.append(kept)
        stds.append(std)
    return Sampler(timesteps, tuple(x0_weights), tuple(x_weights), tuple(stds))


# ---- Observation history: what a policy with `n_obs_steps` observations sees ----
#
# The stacked observation is `[o_t, o_t - o_{t-stride}, o_t - o_{t-2·stride}, …]`: earlier observations enter
# as differences, so that their scale is that of the motion and not of the place. Before the start of an
# episode its first observation repeats. Training windows and rollouts share the functions below.


def stack_frames(frames: Sequence[Tensor]) -> Tensor:
    """Stacks observations o_t, o_{t-stride}, o_{t-2·stride}, …, each (B, obs_dim), to (B, len(frames) · obs_dim)."""
    current, *earlier = frames
    return torch.cat([current, *(current - frame for frame in earlier)], dim=-1)


def frame_rows(starts: Tensor, rows: Tensor, n_obs_steps: int, stride: int) -> list[Tensor]:
    """Which rows of a demonstration array a policy sees: `n_obs_steps` index tensors (W,), the current rows first.

    `starts` (W,) are the first rows of the episodes that the windows belong to, `rows` (W,) their current ones.
    """
    return [torch.maximum(rows - step * stride, starts) for step in range(n_obs_steps)]


class ObsHistory:
    """Keeps the last observations of running episodes: a policy sees `n_obs_steps`, `stride` control steps apart."""

    _recent: Tensor  # (span, B, obs_dim), oldest first

    def __init__(self, n_obs_steps: int, stride: int) -> None:
        self.stride = stride
        self._span = (n_obs_steps - 1) * stride + 1

    def start(self, obs: Tensor) -> Tensor:
        """Begins new episodes by their first observation (B, obs_dim); returns it stacked."""
        self._recent = obs.expand(self._span, *obs.shape)
        return self.extend(obs.new_empty(0, *obs.shape))

    def extend(self, obs_path: Tensor) -> Tensor:
        """Goes on by n control steps, with the observation after each (n, B, obs_dim).

        Returns:
            (B, n_obs_steps · obs_dim) stacked observation after the last of them.
        """
        self._recent = torch.cat([self._recent, obs_path])[-self._span :]
        return stack_frames(self._recent.flip(0)[:: self.stride].unbind())


# ---- The diffusion policy: noise and observations in, a chunk of actions out ----


class DiffusionPolicy(nn.Module):
    """Predicts action chunks by denoising.

    ```
    stacked obs ── encode ──► cond ─┐
    code ───────────────────────────┤
    noise ──────────────────────────┴─ sample ──► chunk ── to_action ──► (B, horizon, action_dim)
    ```

    Noise and chunks are (B, noise_dim), the flattened (horizon, action_dim) in normalised units, so that
    N(0, I) noise, steering and residuals all live on one scale. With the DDIM sampler the chunk is a
    function of noise and observation; with DDPM a generator draws more noise on the way.

    A coded policy (ours) takes a mode code as well, which tells it which of its behaviours to show; `num_codes` is 0
    where there are none.

    Source: Ho et al. (2020), Song et al. (2021); action chunks as in Chi et al. (2023).
    """

    alphas_cumprod: Tensor
    chunk_low: Tensor  # (noise_dim,) bounds on predicted clean chunks, in normalised units
    chunk_high: Tensor

    def __init__(self, config: PolicyConfig, obs_dim: int, action_dim: int, num_codes: int = 0) -> None:
        super().__init__()
        self.config = config
        self.num_codes = num_codes
        self.fingerprint = ""  # SHA-256 of its weights file, once loaded; modes.json and finetuned.json hold it
        self.obs_dim = obs_dim
        self.action_dim = action_dim
        self.action_low = (-1.0,) * action_dim  # the environment's action, in its own units, at -1 and at 1
        self.action_high = (1.0,) * action_dim
        self.noise_dim = config.horizon * action_dim
        self.cond_dim = config.n_obs_steps * obs_dim
        self.obs_normaliser = Normaliser(self.cond_dim)
        self.action_normaliser = Normaliser(action_dim)
        self.register_buffer("chunk_low", -torch.ones(self.noise_dim))
        self.register_buffer("chunk_high", torch.ones(self.noise_dim))
        self.denoiser = make_denoiser(config, self.noise_dim, self.cond_dim, num_codes)
        alphas_cumprod = make_alphas_cumprod(config.schedule, config.denoising_steps)
        self.register_buffer("alphas_cumprod", alphas_cumprod.float(), persistent=False)
        self._signals = tuple(alphas_cumprod.sqrt().tolist())
        self._noises = tuple((1 - alphas_cumprod).sqrt().tolist())
        self._exact_alphas = alphas_cumprod  # float64, for coefficients that are computed once
        ddpm = config.sampler == "ddpm"
        steps = config.denoising_steps if ddpm else config.ddim_steps
        timesteps = ddim_timesteps(config.denoising_steps, steps, config.ddim_spacing)
        self.sampler = make_ddim_sampler(alphas_cumprod, timesteps, eta=float(ddpm))
        self.timesteps = self.sampler.timesteps  # diffusion steps of the configured sampler, the noisiest first

    @property
    def device(self) -> torch.device:
        """Where it lives."""
        return self.alphas_cumprod.device

    def with_codes(self, num_codes: int) -> DiffusionPolicy:
        """A copy with `num_codes` codes, whose tables are zero: under every code it equals this policy."""
        coded = DiffusionPolicy(self.config, self.obs_dim, self.action_dim, num_codes)
        coded.load_state_dict(self.state_dict(), strict=False)  # the tables stay at zero
        coded.action_low, coded.action_high = self.action_low, self.action_high
        return coded.to(self.device)

    # training ----------------------------------------------------------------------------------------

    @torch.no_grad()
    def fit_normalisers(self, chunk: Tensor, stacked: Tensor, action: Tensor | None = None) -> None:
        """Takes scales and bounds from demonstrations.

        Actions and stacked observations get zero mean and unit standard deviation. Statistics of actions are over the
        first action of each window: there is a window for every step, so each action counts once, and the padding after
        an episode's end not at all. Predicted chunks are clipped to the range of each action component:
        every demonstrated action can be reached, however rare, and nothing beyond.

        Args:
            chunk: (W, noise_dim) actions of the training windows.
            stacked: (W, cond_dim) observations of the training windows.
            action: (N, action_dim) all demonstrated actions, held-out ones too; those of the windows if None.
        """
        actions = chunk[:, : self.action_dim]
        self.action_normaliser.fit(actions)
        self.obs_normaliser.fit(stacked)
        low, high = torch.aminmax(self.action_normaliser(actions if action is None else action), dim=0)
        self.chunk_low.copy_(low.repeat(self.config.horizon))
        self.chunk_high.copy_(high.repeat(self.config.horizon))

    def loss(self, chunk: Tensor, stacked: Tensor, generator: torch.Generator) -> Tensor:
        """Denoising loss of raw windows: actions (B, noise_dim), flattened, and stacked observations (B, cond_dim)."""
        t, noise = self.draw_corruption(len(chunk), generator)
        return self.denoising_loss(self.normalise_chunk(chunk), self.encode(stacked), t, noise)

    def draw_corruption(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Diffusion steps (count,) and noise (count, noise_dim) to train on."""
        t = torch.randint(self.config.denoising_steps, (count,), generator=generator, device=self.device)
        return t, torch.randn(count, self.noise_dim, generator=generator, device=self.device)

    def denoising_loss(self, x0: Tensor, cond: Tensor, t: Tensor, noise: Tensor, code: Tensor | None = None) -> Tensor:
        """Mean squared error of what the network predicts.

        Args:
            x0: (B, noise_dim) normalised clean chunks.
            cond: (B, cond_dim) encoded observations.
            t: (B,) diffusion steps.
            noise: (B, noise_dim) standard normal noise.
            code: (B,) mode codes, for a coded policy.
        """
        signal = self.alphas_cumprod[t, None]  # (B, 1)
        x = signal.sqrt() * x0 + (1 - signal).sqrt() * noise
        context = self.denoiser.embed_cond(cond) + self.denoiser.embed_time()[t]
        target = x0 if self.config.prediction == "x0" else noise
        modulation = () if code is None else self.denoiser.embed_code(code)
        return F.mse_loss(self.denoiser(x, context, modulation), target)

    # acting ------------------------------------------------------------------------------------------

    def encode(self, stacked: Tensor) -> Tensor:
        """Normalises and bounds stacked observations (B, cond_dim); what is no number counts as their mean."""
        normalised: Tensor = self.obs_normaliser(stacked)
        return normalised.clamp(-self.config.clip_obs, self.config.clip_obs).nan_to_num_(0.0)

    @torch.no_grad()
    def bounded_share(self, stacked: Tensor) -> float:
        """Share of the values of stacked observations (W, cond_dim) that `clip_obs` bounds."""
        return float((self.obs_normaliser(stacked).abs() > self.config.clip_obs).double().mean())

    def sample(
        self, noise: Tensor, cond: Tensor, generator: torch.Generator | None = None, code: Tensor | None = None
    ) -> Tensor:
        """Denoises starting noise (B, noise_dim) with the configured sampler, to a normalised chunk of that shape.

        Observations (B, cond_dim) are encoded. The generator is needed by the DDPM sampler only; a policy without codes
        ignores the codes (B,).
        """
        return self.sampler.sample(noise, self.condition(cond, code), generator)

    def make_sampler(self, eta: float) -> Sampler:
        """The sampler over the configured diffusion steps that adds the share η of the posterior's noise."""
        return make_ddim_sampler(self._exact_alphas, self.timesteps, eta)

    def condition(self, cond: Tensor, code: Tensor | None = None) -> Denoise:
        """The predictor of the clean chunk, within the range of the data, under a condition and a code.

        The shares of encoded observations (B, cond_dim) and mode codes (B,) are computed once. A policy without codes
        ignores them.
        """
        modulation = self.denoiser.embed_code(code) if self.num_codes and code is not None else ()
        seen, time = self.denoiser.embed_cond(cond), self.denoiser.embed_time()  # (B, ...), (denoising_steps, ...)

        def predict(x: Tensor, t: int) -> Tensor:
            output: Tensor = self.denoiser(x, seen + time[t], modulation)
            if self.config.prediction == "epsilon":
                output = (x - self._noises[t] * output) / self._signals[t]
            return output.clamp(self.chunk_low, self.chunk_high)

        return predict

    def to_action(self, x: Tensor) -> Tensor:
        """Actions (B, n, action_dim) in [-1, 1] of n normalised ones in a row (B, n · action_dim).

        Of a chunk, callers execute the first `config.n_action_steps`.
        """
        chunk = x.reshape(len(x), -1, self.action_dim)
        return self.action_normaliser.inverse(chunk).clamp(-1.0, 1.0)

    def normalise_chunk(self, chunk: Tensor) -> Tensor:
        """Undoes `to_action` for flattened actions (B, noise_dim)."""
        normalised: Tensor = self.action_normaliser(chunk.reshape(-1, self.config.horizon, self.action_dim))
        return normalised.reshape(-1, self.noise_dim)
