"""A policy of the user's own, which stays as it is: what it must offer, how it is found, how the stages act through it.

`pretrain.external_policy` names a function, which takes nothing and returns the policy: a callable with a `spec`. All
that is asked of it is `chunk = policy(noise, obs)`; how it makes a chunk of noise is its own affair.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from bmd_pipeline.config.hashing import hash_function
from bmd_pipeline.config.schema import PolicyConfig
from bmd_pipeline.environments.base import from_bounds
from bmd_pipeline.errors import ArtifactError, ConfigError, blame, suggest
from bmd_pipeline.io.files import hash_tensors
from bmd_pipeline.policies.diffusion import DiffusionPolicy
from bmd_pipeline.policies.networks import Normaliser
from bmd_pipeline.tasks.registry import import_named

SETTING = "pretrain.external_policy"


@dataclass(frozen=True)
class PolicySpec:
    """What a policy sees and answers, in control steps."""

    obs_dim: int
    action_dim: int
    horizon: int  # actions predicted at once
    n_action_steps: int  # of them executed before the policy looks again
    n_obs_steps: int = 1  # observations that it sees
    obs_stride: int = 1  # control steps between two of them


class ChunkPolicy(Protocol):
    """A policy that makes a chunk of actions of noise."""

    spec: PolicySpec

    def __call__(self, noise: Tensor, obs: Tensor) -> Tensor:
        """A chunk of actions.

        It must be a function of its arguments: all randomness comes from the noise.

        Args:
            noise: (B, horizon, action_dim), from N(0, I).
            obs: (B, n_obs_steps, obs_dim) observations as the task gives them, the latest last.

        Returns:
            (B, horizon, action_dim) actions in the units of the task.
        """


class ExternalPolicy(nn.Module):
    """A user's policy in the place of a `DiffusionPolicy`, of which it has what acting and steering need.

    Noise and chunks are (B, noise_dim) in normalised units, conditions (B, cond_dim) encoded observations. The user's
    policy sees observations as they were: encoding can be undone.
    """

    def __init__(self, function: str, policy: ChunkPolicy) -> None:
        super().__init__()
        spec = policy.spec
        self.function = function
        self.policy = policy
        self.config = PolicyConfig(  # of which nothing but the shape is read
            horizon=spec.horizon,
            n_action_steps=spec.n_action_steps,
            n_obs_steps=spec.n_obs_steps,
            obs_stride=spec.obs_stride,
        )
        self.num_codes = 0
        self.fingerprint = ""
        self.obs_dim, self.action_dim = spec.obs_dim, spec.action_dim
        self.action_low, self.action_high = (-1.0,) * self.action_dim, (1.0,) * self.action_dim
        self.noise_dim, self.cond_dim = spec.horizon * spec.action_dim, spec.n_obs_steps * spec.obs_dim
        self.obs_normaliser, self.action_normaliser = Normaliser(self.cond_dim), Normaliser(self.action_dim)
        self.trial: dict[str, Tensor] = {}

    @property
    def device(self) -> torch.device:
        """Where it lives."""
        return self.obs_normaliser.mean.device

    def own_tensors(self) -> dict[str, Tensor]:
        """All that this package adds to the user's policy: scales of observations and actions, and what it did when it
        was tried out."""
        parts = {"obs_normaliser": self.obs_normaliser, "action_normaliser": self.action_normaliser}
        scales = {
            f"{part}.{name}": value for part, module in parts.items() for name, value in module.state_dict().items()
        }
        return scales | {f"trial.{name}": value for name, value in self.trial.items()}

    def load_own_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Takes what `own_tensors` gave.

        Raises:
            ValueError: it is of another policy.
        """
        dims = {"noise": self.noise_dim, "cond": self.cond_dim, "chunk": self.noise_dim}
        trial = {name: tensors.get(f"trial.{name}", torch.zeros(0)) for name in dims}
        rows = len(trial["noise"])
        if not rows or any(trial[name].shape != (rows, dim) for name, dim in dims.items()):
            raise ValueError("its trial has other sizes")
        self.trial = trial
        try:
            self.load_state_dict({name: value for name, value in tensors.items() if name not in _TRIAL}, strict=False)
        except RuntimeError:
            raise ValueError("its normalisers have other sizes") from None
        if self.own_tensors().keys() != tensors.keys():
            raise ValueError("it has other tensors")

    def fit_normalisers(self, chunk: Tensor, stacked: Tensor) -> None:
        """Takes scales from demonstrations: chunks (W, noise_dim) and stacked observations (W, cond_dim)."""
        self.action_normaliser.fit(chunk[:, : self.action_dim])
        self.obs_normaliser.fit(stacked)

    def encode(self, stacked: Tensor) -> Tensor:
        """Normalises stacked observations (B, cond_dim); what is no number counts as their mean.

        Beyond `clip_obs` a value grows by its logarithm: others that see it are spared, and no information is lost.
        """
        normalised: Tensor = self.obs_normaliser(stacked)
        bound = self.config.clip_obs
        within = normalised.clamp(-bound, bound)
        encoded = within + normalised.sign() * (normalised.abs() - bound).clamp(min=0.0).log1p()
        return encoded.nan_to_num_(0.0, posinf=0.0, neginf=0.0)

    def _decode(self, cond: Tensor) -> Tensor:
        """Undoes `encode`, to observations (B, n_obs_steps, obs_dim), the latest last."""
        bound = self.config.clip_obs
        within = cond.clamp(-bound, bound)
        stacked = self.obs_normaliser.inverse(within + cond.sign() * (cond.abs() - bound).clamp(min=0.0).expm1())
        current, *changes = stacked.chunk(self.config.n_obs_steps, dim=1)
        return torch.stack([*(current - change for change in reversed(changes)), current], dim=1)

    def sample(
        self, noise: Tensor, cond: Tensor, generator: torch.Generator | None = None, code: Tensor | None = None
    ) -> Tensor:
        """The user's chunk for noise (B, noise_dim) and encoded observations (B, cond_dim), normalised.

        Generator and codes are ignored.

        Raises:
            TaskError: the user's code fails.
            ArtifactError: what it returns is no chunk of finite actions.
        """
        shape = (len(noise), self.config.horizon, self.action_dim)
        with blame(f"{SETTING} {self.function}", self.function.partition(":")[0], "a call"):
            chunk = self.policy(noise.reshape(shape).clone(), self._decode(cond))  # theirs to change
        if not isinstance(chunk, Tensor) or chunk.shape != shape or not chunk.is_floating_point():
            got = f"{chunk.dtype} {list(chunk.shape)}" if isinstance(chunk, Tensor) else type(chunk).__name__
            raise ArtifactError(f"{SETTING} {self.function}: a call must return floats {list(shape)}, got {got}")
        if chunk.device.type != noise.device.type:
            raise ArtifactError(
                f"{SETTING} {self.function}: a call must return a chunk on {noise.device}, as its arguments are, got "
                f"one on {chunk.device}"
            )
        chunk = chunk.to(noise.dtype)
        if not bool(torch.isfinite(chunk).all()):
            raise ArtifactError(f"{SETTING} {self.function}: a call returned actions that are not finite")
        low, high = (torch.tensor(bound, device=chunk.device) for bound in (self.action_low, self.action_high))
        normalised: Tensor = self.action_normaliser(from_bounds(chunk, low, high))
        return normalised.flatten(1)

    def to_action(self, x: Tensor) -> Tensor:
        """Actions (B, n, action_dim) in [-1, 1] of n normalised ones in a row (B, n · action_dim)."""
        chunk = x.reshape(len(x), -1, self.action_dim)
        return self.action_normaliser.inverse(chunk).clamp(-1.0, 1.0)

    def identify(self) -> dict[str, str]:
        """The function's name, and hashes of its module's code and, of a torch module, of its weights."""
        weights = hash_tensors(self.policy.state_dict()) if isinstance(self.policy, nn.Module) else ""
        return {"function": self.function, "source_sha256": hash_function(self.function), "weights_sha256": weights}


_TRIAL = ("trial.noise", "trial.cond", "trial.chunk")
_SAME_CALL, _SAME_POLICY = 1e-4, 1e-2
"""How far chunks of one policy for one noise may differ, in standard deviations of the demonstrated actions: in one
process, and on another machine or device, where the same products are rounded otherwise."""

BasePolicy = DiffusionPolicy | ExternalPolicy
"""A pre-trained policy: ours, whose denoiser can be trained further, or one that stays as it is."""


def load_external(
    function: str, sizes: Mapping[str, int], bounds: tuple[tuple[float, ...], tuple[float, ...]]
) -> ExternalPolicy:
    """Calls the user's function, and checks that its policy has the sizes `obs_dim` and `action_dim` of the task, whose
    actions are between the lower and upper bounds.

    Raises:
        ConfigError: the module has no such function, or what it returns is no policy.
        TaskError: the module can't be imported, or the function fails.
        ArtifactError: the policy is for other sizes than the task's.
    """
    place = f"{SETTING} {function}"
    with blame(place, function.partition(":")[0], "the function"):
        policy = _find(function)()
    found = getattr(policy, "spec", None)
    if not callable(policy) or not isinstance(found, PolicySpec):
        raise ConfigError(
            f"{place} must return a callable with a `spec`, a bmd_pipeline.policies.external.PolicySpec; got "
            f"{type(policy).__name__}{f' with a spec of {type(found).__name__}' if found is not None else ''}"
        )
    for name, expected in sizes.items():
        if (given := getattr(found, name)) != expected:
            raise ArtifactError(f"{place}: its spec has {name} {given}, the task has {expected}")
    try:
        external = ExternalPolicy(function, policy)
    except ValueError as error:
        reason = " ".join(str(error).split("\n")[1:3])
        raise ConfigError(f"{place}: its spec doesn't hold: {reason}") from None
    external.action_low, external.action_high = bounds
    return external.requires_grad_(False).eval()


def _find(function: str) -> Callable[[], ChunkPolicy]:
    module_name, _, name = function.partition(":")
    module = import_named(SETTING, module_name)
    found = getattr(module, name, None)
    if not callable(found):
        functions = [known for known, value in vars(module).items() if callable(value) and not known.startswith("_")]
        raise ConfigError(f"{SETTING}: {module_name} has no function {name!r}; {suggest(name, functions)}")
    made: Callable[[], ChunkPolicy] = found
    return made


@torch.no_grad()
def try_out(policy: ExternalPolicy, stacked: Tensor) -> float:
    """Calls a policy twice on demonstrated observations (W, cond_dim), of which it takes a few, and keeps what it did:
    the policy may read files, or ask a server, that no hash sees.

    Returns:
        share of its actions' values that lie outside the bounds of the task's actions, where they are clipped.

    Raises:
        ArtifactError: an action is not finite, or is another one for the same noise.
    """
    cond = policy.encode(stacked[:: -(-len(stacked) // 64)])
    noise = torch.randn(len(cond), policy.noise_dim, generator=torch.Generator().manual_seed(0)).to(cond.device)
    first, second = policy.sample(noise, cond), policy.sample(noise, cond)
    place = f"{SETTING} {policy.function}"
    if not torch.allclose(first, second, atol=_SAME_CALL):
        raise ArtifactError(
            f"{place}: two calls with the same noise gave other actions: take all randomness from the noise, and "
            "switch layers such as dropout off"
        )
    policy.trial = {"noise": noise, "cond": cond, "chunk": first}
    actions = policy.action_normaliser.inverse(first.reshape(len(first), -1, policy.action_dim))
    return (actions.abs() > 1.0 + _SAME_CALL).float().mean().item()


@torch.no_grad()
def require_same(policy: ExternalPolicy) -> None:
    """Checks that a policy still does what it did when it was tried out.

    Raises:
        ArtifactError: it does something else.
    """
    device = policy.device
    noise, cond, chunk = (policy.trial[name].to(device) for name in ("noise", "cond", "chunk"))
    if not torch.allclose(policy.sample(noise, cond), chunk, atol=_SAME_POLICY):
        raise ArtifactError(
            f"{SETTING} {policy.function}: its actions are other ones than when `bmd-pipeline pretrain` tried it out; "
            "what it reads (a file, a server) changed since: run `bmd-pipeline pretrain` again"
        )
