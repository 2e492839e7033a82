"""The diffusion policy: noise and observations in, a chunk of actions out."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bmd_pipeline.config.schema import PolicyConfig
from bmd_pipeline.policies.chain import Chain, Denoise, make_ddim_chain, make_ddpm_chain
from bmd_pipeline.policies.networks import Denoiser, Modulation
from bmd_pipeline.policies.normaliser import Normaliser
from bmd_pipeline.policies.schedule import ddim_timesteps, make_alphas_cumprod


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

    A coded policy (ours) takes a mode code as well, which tells it which of its behaviours to show.

    Args:
        config: shape of the policy.
        obs_dim: size of one observation.
        action_dim: size of one action.
        num_codes: mode codes K that it can be told; 0: none.

    Source: Ho et al. (2020), Song et al. (2021); action chunks as in Chi et al. (2023).
    """

    alphas_cumprod: Tensor
    chunk_low: Tensor  # (noise_dim,) bounds on predicted clean chunks, in normalised units
    chunk_high: Tensor

    def __init__(self, config: PolicyConfig, obs_dim: int, action_dim: int, num_codes: int = 0) -> None:
        super().__init__()
        self.config = config
        self.num_codes = num_codes
        self.fingerprint = ""  # hash of its weights file, once loaded: what is built on it names it
        self.obs_dim = obs_dim
        self.action_dim = action_dim
        self.action_low = (-1.0,) * action_dim  # what the environment makes of -1 and of 1, in its units
        self.action_high = (1.0,) * action_dim
        self.noise_dim = config.horizon * action_dim
        self.cond_dim = config.n_obs_steps * obs_dim
        self.obs_normaliser = Normaliser(self.cond_dim)
        self.action_normaliser = Normaliser(action_dim)
        self.register_buffer("chunk_low", -torch.ones(self.noise_dim))
        self.register_buffer("chunk_high", torch.ones(self.noise_dim))
        self.denoiser = Denoiser(
            self.noise_dim, self.cond_dim, config.hidden_sizes, config.activation, config.denoising_steps, num_codes
        )
        alphas_cumprod = make_alphas_cumprod(config.schedule, config.denoising_steps)
        self.register_buffer("alphas_cumprod", alphas_cumprod.float(), persistent=False)
        self._signals = tuple(alphas_cumprod.sqrt().tolist())
        self._noises = tuple((1 - alphas_cumprod).sqrt().tolist())
        visited = config.ddim_timesteps or ddim_timesteps(config.denoising_steps, config.ddim_steps)
        self._exact_alphas = alphas_cumprod  # float64, for coefficients that are computed once
        self.ddim_chain = make_ddim_chain(alphas_cumprod, visited)
        self.ddpm_chain = make_ddpm_chain(alphas_cumprod)

    def with_codes(self, num_codes: int) -> DiffusionPolicy:
        """A copy that can be told codes, and as yet answers to all of them as this policy does."""
        coded = DiffusionPolicy(self.config, self.obs_dim, self.action_dim, num_codes)
        coded.load_state_dict(self.state_dict(), strict=False)  # the tables stay at zero
        coded.action_low, coded.action_high = self.action_low, self.action_high
        return coded.to(self.alphas_cumprod.device)

    # training ----------------------------------------------------------------------------------------

    @torch.no_grad()
    def fit_normalisers(self, chunk: Tensor, stacked: Tensor, action: Tensor | None = None) -> None:
        """Takes scales and bounds from demonstrations.

        Scales are zero mean and unit standard deviation. Of each chunk the first action alone counts: there is a window
        for every demonstrated step, so these are the data, each action once, and what fills chunks after an episode's
        end is not among them. Predicted chunks are bounded by the range of each action component, so that every
        demonstrated action can be reached, however rare, and nothing beyond.

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
        """Denoising loss of raw windows.

        Args:
            chunk: (B, noise_dim) actions of the data, flattened.
            stacked: (B, cond_dim) stacked observations.
            generator: draws diffusion steps and noise.
        """
        t, noise = self.draw_corruption(len(chunk), generator)
        return self.denoising_loss(self.normalise_chunk(chunk), self.encode(stacked), t, noise)

    def draw_corruption(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Diffusion steps (count,) and noise (count, noise_dim) to train on."""
        device = self.alphas_cumprod.device
        steps = self.config.denoising_steps
        t = torch.randint(steps, (count,), generator=generator, device=device)
        return t, torch.randn(count, self.noise_dim, generator=generator, device=device)

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

    @property
    def chain(self) -> Chain:
        """The configured sampler."""
        return self.ddim_chain if self.config.sampler == "ddim" else self.ddpm_chain

    @property
    def timesteps(self) -> tuple[int, ...]:
        """Diffusion steps of the configured sampler, the noisiest first."""
        return self.chain.timesteps

    def encode(self, stacked: Tensor) -> Tensor:
        """Normalises and bounds stacked observations (B, cond_dim)."""
        normalised: Tensor = self.obs_normaliser(stacked)
        return normalised.clamp(-self.config.clip_obs, self.config.clip_obs)

    @torch.no_grad()
    def bounded_share(self, stacked: Tensor) -> float:
        """Share of the values of stacked observations (W, cond_dim) that `clip_obs` bounds."""
        return float((self.obs_normaliser(stacked).abs() > self.config.clip_obs).double().mean())

    def sample(
        self, noise: Tensor, cond: Tensor, generator: torch.Generator | None = None, code: Tensor | None = None
    ) -> Tensor:
        """Denoises with the configured sampler.

        Args:
            noise: (B, noise_dim) starting noise.
            cond: (B, cond_dim) encoded observations.
            generator: needed by the DDPM sampler only.
            code: (B,) mode codes; a policy without codes ignores them.

        Returns:
            (B, noise_dim) normalised chunk.
        """
        return self.chain.sample(noise, self.condition(cond, code), generator)

    def sample_ddpm(self, noise: Tensor, cond: Tensor, generator: torch.Generator) -> Tensor:
        """Denoises over all diffusion steps with fresh noise at each, whatever the configured sampler."""
        return self.ddpm_chain.sample(noise, self.condition(cond), generator)

    def make_chain(self, eta: float) -> Chain:
        """The sampler over the configured diffusion steps that adds the share η of the posterior's noise."""
        return make_ddim_chain(self._exact_alphas, self.timesteps, eta)

    def condition(self, cond: Tensor, code: Tensor | None = None) -> Denoise:
        """The predictor of the clean chunk under a condition and a code, whose shares are computed once.

        Args:
            cond: (B, cond_dim) encoded observations.
            code: (B,) mode codes; a policy without codes ignores them.
        """
        modulation = self.denoiser.embed_code(code) if self.num_codes and code is not None else ()
        return _Predictor(self, self.denoiser.embed_cond(cond), self.denoiser.embed_time(), modulation)

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

    def clean_prediction(self, x: Tensor, output: Tensor, t: int) -> Tensor:
        """Clean chunk from the network's output at diffusion step t, within the range of the data."""
        if self.config.prediction == "epsilon":
            output = (x - self._noises[t] * output) / self._signals[t]
        return output.clamp(self.chunk_low, self.chunk_high)


@dataclass(frozen=True)
class _Predictor:
    policy: DiffusionPolicy
    cond: Tensor  # (B, width) embedded condition
    time: Tensor  # (denoising_steps, width) embedded diffusion steps
    modulation: Modulation

    def __call__(self, x: Tensor, t: int) -> Tensor:
        output = self.policy.denoiser(x, self.cond + self.time[t], self.modulation)
        return self.policy.clean_prediction(x, output, t)
