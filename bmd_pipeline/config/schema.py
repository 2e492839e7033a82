"""Settings of every stage: frozen pydantic models with bounds."""

import functools
import json
import math
import re
from collections.abc import Hashable, Mapping, Sequence
from contextlib import suppress
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from bmd_pipeline.config.documented import Documented
from bmd_pipeline.errors import ConfigError, suggest
from bmd_pipeline.methods import METHODS, UNTRAINED, method_family, uses_modes

WHOLE_NUMBER = r"[-+]?(0|[1-9][0-9]*)"
NUMBER = rf"({WHOLE_NUMBER}(\.[0-9]*)?|[-+]?\.[0-9]+)([eE][-+]?[0-9]+)?"
"""A number as it is written in settings."""


class Section(Documented):
    """A frozen group of settings; unknown keys are refused, defaults are validated too."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _numbers_are_numbers(cls, value: Any, info: ValidationInfo) -> Any:
        """pydantic reads true as 1, 1 as true, and text as Python does: 3_0 as 30, and no as false."""
        kinds = _list_kinds(cls, str(info.field_name))
        if {int, float, bool} & kinds and str not in kinds and any(_is_misread(entry, kinds) for entry in _flat(value)):
            number = "a list of numbers" if isinstance(value, list | tuple) else "a number"
            what = number if {int, float} & kinds else "true or false"
            raise ValueError(f"must be {what}, got {value!r:.60}")
        return value


@functools.cache
def _list_kinds(section: type[Section], name: str) -> set[Any]:
    """Types of what a field holds."""
    return _list_types(section.model_fields[name].annotation)


class Untyped(str):
    """Text that Snakemake made of a value inside of a list or a group of its --config: it may be a number, or true or
    false. Any other text is text."""

    __slots__ = ()


def _is_misread(entry: Any, kinds: set[Any]) -> bool:
    """Whether pydantic would take an entry for a number, or for true or false, that is none or isn't written as one."""
    if isinstance(entry, bool):
        return bool not in kinds
    if not {int, float} & kinds:
        is_written = isinstance(entry, Untyped) and entry.lower() in ("true", "false")
        return isinstance(entry, int | float | str) and not is_written
    if not isinstance(entry, str) or entry in kinds or (isinstance(entry, Untyped) and re.fullmatch(NUMBER, entry)):
        return False
    with suppress(ValueError):
        float(entry)
        return True
    return False  # pydantic says what it must be


def _flat(value: Any) -> list[Any]:
    """A value, or the entries of a list and of the lists in it."""
    return [part for entry in value for part in _flat(entry)] if isinstance(value, list | tuple) else [value]


def _list_types(annotation: Any) -> set[Any]:
    """An annotation's parts that have no parts themselves, such as int and None of `int | None`."""
    parts = get_args(annotation)
    return set().union(*map(_list_types, parts)) if parts else {annotation}


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as dotted names: `{"a": {"b": 1}}` gives `{"a.b": 1}`."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


TASK_PATTERN = r"[A-Za-z][A-Za-z0-9_-]{0,63}"
"""A task's name becomes a folder's name, and part of others."""


def _unrepeated(values: Sequence[Hashable]) -> Sequence[Hashable]:
    if len(set(values)) != len(values):
        raise ValueError(f"must not repeat, got {list(values)}")
    return values


Once = AfterValidator(_unrepeated)
"""Whatever is listed is listed once."""

MAX_SEED = 2**31 - 1
Seed = Annotated[int, Field(ge=0, le=MAX_SEED)]
"""Seed of a run; derived seeds fit 64 bits whatever it is."""
Widths = Annotated[tuple[Annotated[int, Field(ge=1, le=16_384)], ...], Field(min_length=1, max_length=8)]
"""Units of each hidden layer."""
Weight = Annotated[float, Field(ge=0.0, le=100.0)]
"""What a behaviour pays, in a task's own settings."""
Name = Annotated[str, Field(min_length=1, max_length=100)]
"""A name that a task gives to a part of it."""
Names = Annotated[tuple[Name, ...], Field(max_length=1000), Once]
TaskName = Annotated[str, Field(pattern=f"^{TASK_PATTERN}$")]


def _no_base(name: str) -> str:
    if re.fullmatch(r"base\d+", name):
        raise ValueError(f"must not be as of a base policy, got {name!r}")
    return name


RunName = Annotated[str, Field(pattern=r"^([A-Za-z0-9_]{1,32})?$"), AfterValidator(_no_base)]
"""No -, which stands before it in a folder's name."""
ModuleName = Annotated[str, Field(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$", max_length=200)]
"""Import path of a Python module."""
FunctionName = Annotated[str, Field(pattern=r"^([A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*)?$", max_length=300)]
"""A function of a module, `module:function`; empty: none."""


class TaskConfig(Section):
    """Which task runs; every stage depends on it."""

    name: TaskName
    """Name of the task, or of a variant of one."""
    extends: TaskName | None = None
    """For a variant: the task whose code and settings it starts from (`extends:` in its file)."""
    plugins: tuple[ModuleName, ...] = Field((), max_length=100)
    """Modules to import that register tasks of your own."""
    physics: Literal["cpu", "cuda"] = "cpu"
    """Where a simulator steps the task. cuda: ManiSkill's GPU simulation, another engine with other results, in which
    networks and episodes stay on the device; it has not been run yet. Native tasks have no simulator, and ignore it."""
    env: dict[str, Any] = {}
    """The task's own settings; `bmd-pipeline tasks NAME` lists them."""


class Disturbance(Section):
    """How the world of fine-tuning, evaluation, curves and clips of a policy differs from the world in which
    demonstrations are collected, the policy is pre-trained and modes are discovered. By default it does not differ.

    Actions are clipped to [-1, 1], then come gain, delay, noise and lock, in this order; the task clips what results.
    """

    action_noise: float = Field(0.0, ge=0.0, le=10.0)
    """Standard deviation of Gaussian noise on every action, in the action's units; drawn anew at each control step."""
    action_gain: float = Field(1.0, ge=0.0, le=10.0)
    """Factor on every action."""
    action_delay: int = Field(0, ge=0, le=100)
    """Control steps by which actions come late; until the first arrives, the action is 0."""
    locked_action: int | None = Field(None, ge=0, le=1023)
    """Component of the action that is held at 0, as a locked joint is, counted from 0; null: none."""
    obs_noise: float = Field(0.0, ge=0.0, le=10.0)
    """Standard deviation of Gaussian noise on observations, drawn anew at each control step; in units of the standard
    deviations over the demonstrations by which the policy normalises what it sees."""

    def describe(self) -> str:
        """What differs, as `action_delay=1`; empty where nothing does."""
        return ", ".join(f"{name}={value:g}" for name, value in self.model_dump(exclude_defaults=True).items())


class CollectConfig(Section):
    """How many demonstrations to collect."""

    num_episodes: int = Field(400, ge=4, le=1_000_000)
    """Successful episodes to keep, balanced over the expert's behaviours."""
    behaviours: Names = ()
    """The expert's behaviours to show, by name; none named means all. A base policy of fewer modes is a control."""


class ResidualNetworkConfig(Section):
    """A denoiser of residual blocks, as DPPO has it; `import-policy` sets this for DPPO's checkpoints."""

    time_dim: int = Field(16, ge=4, le=1024, multiple_of=2)
    """Width of the time embedding, which a small network makes of its sines and cosines."""
    cond_sizes: Annotated[tuple[Annotated[int, Field(ge=1, le=16_384)], ...], Field(max_length=8)] = ()
    """Widths of a network that observations go through first; none means that they enter as they are."""
    layer_norm: bool = False
    """Whether each hidden layer is normalised before its nonlinearity."""


class UNetConfig(Section):
    """A denoiser that convolves over the chunk, as LeRobot has it; `import-policy` sets this for its checkpoints."""

    down_sizes: Annotated[
        tuple[Annotated[int, Field(ge=8, le=16_384, multiple_of=8)], ...], Field(min_length=1, max_length=8)
    ] = (128, 256)
    """Channels at each resolution; from one to the next the chunk is halved."""
    kernel_size: int = Field(5, ge=1, le=31)
    """Actions that a convolution sees; an odd number."""
    time_dim: int = Field(128, ge=4, le=1024, multiple_of=2)
    """Width of the time embedding, which a small network makes of its sines and cosines."""
    past_steps: int = Field(0, ge=0, le=255)
    """Actions of the chunk that belong to earlier control steps; they are not executed."""


class PolicyConfig(Section):
    """Shape of the diffusion policy. Stored in its checkpoint.

    ```
    time        t-1      t      t+1   ...                    t+horizon-1
    observed  |--o-------o|                                                n_obs_steps, obs_stride apart
    predicted          |--a------a-- ... --------------------a|            horizon
    executed           |--a------a|                                        n_action_steps, then look again
    ```
    """

    horizon: int = Field(8, ge=1, le=256)
    """Actions predicted at once (the chunk)."""
    n_action_steps: int = Field(4, ge=1, le=256)
    """Actions of the chunk that are executed before the policy looks again."""
    n_obs_steps: int = Field(2, ge=1, le=16)
    """Observations the policy sees; earlier ones enter as differences to the current one."""
    obs_stride: int = Field(1, ge=1, le=64)
    """Control steps between two of those observations."""
    hidden_sizes: Widths = (512, 512, 512)
    """Widths of the denoiser's hidden layers."""
    activation: Literal["silu", "relu", "mish", "tanh"] = "silu"
    """Nonlinearity of the denoiser."""
    residual_network: ResidualNetworkConfig | None = None
    """Residual blocks of two hidden layers after the first, which must all be equally wide; null: plain layers."""
    unet: UNetConfig | None = None
    """A U-Net in the place of a multilayer perceptron; hidden_sizes and activation are not read then."""
    prediction: Literal["x0", "epsilon"] = "x0"
    """What the denoiser predicts: the clean chunk or the noise."""
    schedule: Literal["cosine", "linear", "cosine_capped"] = "cosine"
    """Noise schedule. cosine_capped: a cosine whose β is at most .999, as in DPPO and LeRobot."""
    denoising_steps: int = Field(20, ge=1, le=1000)
    """Diffusion steps in training."""
    sampler: Literal["ddim", "ddpm"] = "ddim"
    """ddim: few steps, deterministic given the starting noise (what steering needs); ddpm: all steps."""
    ddim_steps: int = Field(2, ge=1, le=1000)
    """Denoising steps of the DDIM sampler, evenly spaced."""
    ddim_spacing: Literal["trailing", "leading"] = "trailing"
    """trailing: from the noisiest diffusion step on; leading: down to the cleanest, as in DPPO."""
    clip_obs: float = Field(5.0, gt=0.0, le=1e6)
    """Bound on normalised observations, in standard deviations over the demonstrations. A component that hardly varies
    there can lie a hundred of them away in a rollout, where the network has seen no data."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.n_action_steps > self.horizon:
            raise ValueError(f"n_action_steps must be <= horizon ({self.horizon}), got {self.n_action_steps}")
        if self.ddim_steps > self.denoising_steps:
            raise ValueError(f"ddim_steps must be <= denoising_steps ({self.denoising_steps}), got {self.ddim_steps}")
        if self.residual_network and (len(self.hidden_sizes) % 2 == 0 or len(set(self.hidden_sizes)) > 1):
            raise ValueError(
                f"hidden_sizes must be an odd number of equal widths for residual_network, got {self.hidden_sizes}"
            )
        if self.unet:
            self._require_unet(self.unet)
        return self

    def _require_unet(self, unet: UNetConfig) -> None:
        if self.residual_network:
            raise ValueError("unet must be null with residual_network: a denoiser is one of them")
        if unet.kernel_size % 2 == 0:
            raise ValueError(f"unet.kernel_size must be odd, got {unet.kernel_size}")
        if self.horizon % (factor := 2 ** (len(unet.down_sizes) - 1)):
            raise ValueError(f"horizon must be a multiple of {factor} for unet.down_sizes, got {self.horizon}")
        if self.n_action_steps > (most := self.horizon - unet.past_steps):
            raise ValueError(f"n_action_steps must be <= horizon - unet.past_steps ({most}), got {self.n_action_steps}")


class PretrainSelectionConfig(Section):
    """When pre-training ends and which weights are kept, by rollouts on selection seeds, which evaluation never uses.

    The validation loss does not tell: it begins to rise long before success stops rising.
    """

    interval: int = Field(1000, ge=1, le=10_000_000)
    """Gradient steps between two rounds of rollouts."""
    episodes: int = Field(512, ge=0, le=1_000_000)
    """Episodes of a round, all at once. 0 plays none: training takes all its iterations and the last average is kept;
    for demonstrations without an environment, and for a base policy that is weak on purpose."""


class PretrainConfig(Section):
    """Behaviour cloning."""

    external_policy: FunctionName = ""
    """A policy of your own, as `module:function` (docs/own-policy.md): nothing is trained, and it stays as it is. Of
    the settings below, only selection.episodes is read then, the episodes that it is measured by."""
    policy: PolicyConfig = PolicyConfig()
    precision: Literal["float32", "bfloat16"] = "float32"
    """What the denoiser's matrices are multiplied in while it trains, for wide ones on devices with bfloat16 units;
    weights, losses and the trained policy stay float32."""
    iterations: int = Field(10_000, ge=1, le=10_000_000)
    """Gradient steps at most; fewer if success is flat before."""
    selection: PretrainSelectionConfig = PretrainSelectionConfig()
    batch_size: int = Field(256, ge=1, le=1_000_000)
    """Windows per gradient step."""
    learning_rate: float = Field(1e-3, gt=0.0, le=1.0)
    """Learning rate of AdamW: linear warm-up, then constant, since the number of steps is not known in advance."""
    warmup_iterations: int = Field(100, ge=0, le=1_000_000)
    """Linear warm-up of the learning rate."""
    log_interval: int = Field(500, ge=1, le=1_000_000)
    """Gradient steps between two log lines."""


KL_STOP = 1.5
"""PPO stops updating a part of the policy on a rollout once that part's approximate KL exceeds this times its
`target_kl`."""


class PPOConfig(Section):
    """PPO (Schulman et al. 2017) with generalised advantage estimation; discovery in the published form uses it too."""

    gamma: float = Field(0.99, gt=0.0, le=1.0)
    """Discount per policy step (one executed chunk)."""
    gae_lambda: float = Field(0.95, ge=0.0, le=1.0)
    """λ of generalised advantage estimation."""
    clip_ratio: float = Field(0.2, gt=0.0, le=1.0)
    """Clip range ε of the probability ratio, of the steering policy and the residual; the denoiser has its own."""
    epochs: int = Field(4, ge=1, le=100)
    """Passes over each rollout."""
    minibatch_size: int = Field(1024, ge=8, le=10_000_000)
    """Decisions per gradient step; a rollout has at most num_envs times the decisions of the longest episode."""
    target_kl: float = Field(0.08, gt=0.0, le=10.0)
    """Steering policy and residual each stop updating on a rollout once their approximate KL exceeds 1.5 times this;
    the denoiser has its own target."""
    learning_rate: float = Field(1e-3, gt=0.0, le=1.0)
    """Learning rate of the steering policy."""
    learning_rate_schedule: Literal["constant", "adaptive"] = "constant"
    """adaptive: where the KL bound stops the policy before half of a rollout's steps, its learning rate falls; where
    the KL stays below half of target_kl, it rises again, up to where it began."""
    value_learning_rate: float = Field(1e-3, gt=0.0, le=1.0)
    """Learning rate of the critic."""
    value_warmup: int = Field(0, ge=0, le=10_000)
    """First iterations in which only the critic learns."""
    entropy_weight: float = Field(0.0, ge=0.0, le=10.0)
    """Weight of the entropy bonus."""
    value_hidden_sizes: Widths = (256, 256)
    """Widths of the critic's hidden layers."""


class InferenceConfig(Section):
    """The inference model q_φ(z|h), a classifier of track histories."""

    features: Names = ()
    """Track columns it sees; empty means the whole track."""
    scale: Literal["feature", "shared"] = "feature"
    """What features are divided by: each by its own standard deviation, or all by one, which suits features of one
    unit: what hardly varies then counts for little, and a policy of one mode is seen as such."""
    history_steps: int = Field(1, ge=1, le=64)
    """Points of the track it sees: the current one and earlier ones."""
    hidden_sizes: Widths = (256, 256, 256)
    """Widths of its hidden layers."""
    input_noise: float = Field(0.05, ge=0.0, le=10.0)
    """Standard deviation of the noise added to its normalised inputs in training, against over-fitting."""
    steps_per_iteration: int = Field(20, ge=1, le=10_000)
    """published: gradient steps after each rollout."""
    fit_steps: int = Field(300, ge=1, le=1_000_000)
    """coded: gradient steps by which it learns from episodes of the taught policy, before it is frozen."""


class SteeringConfig(Section):
    """The steering policy π_ψ(w|s,z) over the input noise, of `dsrl` and of discovery in the published form."""

    hidden_sizes: Widths = (256, 256, 256)
    """Widths of its hidden layers."""
    noise_components: int = Field(0, ge=0, le=256)
    """Discrete-cosine components of the chunk's noise that are steered; the rest stays N(0, I). 0: all."""
    max_noise: float = Field(2.0, gt=0.0, le=10.0)
    """Bound on each component of the steering mean; the base policy was trained on noise from N(0, I) and has hardly
    seen larger values."""


class TeachingConfig(Section):
    """coded (ours): how the denoiser is taught its codes, by more behaviour cloning, told each demonstration's code."""

    steps: int = Field(2000, ge=1, le=10_000_000)
    """Gradient steps; every code is equally likely in a batch."""
    batch_size: int = Field(512, ge=1, le=1_000_000)
    """Windows per gradient step."""
    learning_rate: float = Field(3e-4, gt=0.0, le=1.0)
    """Peak learning rate of AdamW; decays to zero along a cosine. The codes' own tables learn ten times as fast."""
    strengths: Annotated[
        tuple[Annotated[float, Field(gt=0.0, le=10.0)], ...], Field(min_length=1, max_length=16), Once
    ] = (1.0, 1.5, 2.0)
    """Factors by which the code tables may be moved away from their mean after teaching. Each is tried in
    heldout_episodes episodes; a larger one is taken if success times obedience, averaged over codes, gains more than
    .01."""


class DiscoverConfig(Section):
    """Mode discovery: which behaviours there are, and how each is commanded."""

    form: Literal["coded", "published"] = "coded"
    """coded (ours): behaviours are clusters of the demonstrations, taught to the denoiser as codes. published: a
    steering policy over the noise of the frozen policy, found by the intrinsic reward alone, with reward and inference
    model as in arXiv 2605.11387; it also serves an imported policy that comes without demonstrations."""
    num_modes: int = Field(32, ge=2, le=1024)
    """Codes K; coded with clustering: density, the most there may be."""
    num_envs: int = Field(512, ge=1, le=1_000_000)
    """Environments per rollout."""
    clustering: Literal["density", "kmeans"] = "density"
    """coded: how demonstrations become behaviours. density: groups with gaps between them, found with their number
    (HDBSCAN). kmeans: num_modes of them, whether there are as many or not."""
    min_demonstrations: int = Field(30, ge=2, le=1_000_000)
    """density: smallest number of demonstrations of a behaviour (HDBSCAN's min_cluster_size). Smaller groups arise by
    chance, and a code taught on so few rarely succeeds."""
    cluster_points: int = Field(12, ge=1, le=256)
    """coded: observations, evenly spaced over the demonstration, that describe it for clustering."""
    teaching: TeachingConfig = TeachingConfig()
    hindsight_episodes: int = Field(1024, ge=8, le=10_000_000)
    """coded: episodes of the taught policy from which the inference model learns to tell codes apart."""
    warmup_iterations: int = Field(15, ge=1, le=100_000)
    """published: rounds E_wp on the intrinsic reward alone, with PPO as finetune.ppo has it."""
    heldout_episodes: int = Field(1024, ge=8, le=1_000_000)
    """Episodes on which the discovery is measured."""
    inference: InferenceConfig = InferenceConfig()
    steering: SteeringConfig = SteeringConfig()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.num_modes > self.num_envs:
            raise ValueError(f"num_modes must be <= num_envs ({self.num_envs}), got {self.num_modes}")
        return self


ModeNumber = Annotated[int, Field(ge=0, le=1023)]


class ModesConfig(Section):
    """What a person decided about the modes that were found in the demonstrations, numbered as they were found.
    `bmd-pipeline modes` writes it to config/modes/<Task>.yaml."""

    demonstrations: Annotated[tuple[Annotated[int, Field(ge=1, le=10_000_000)], ...], Field(max_length=1024)] = ()
    """Demonstrations of each mode. What is decided holds for these modes: discovery refuses to go on with others."""
    drop: Annotated[tuple[ModeNumber, ...], Field(max_length=1024), Once] = ()
    """Modes that get no code. Their demonstrations are not taught, and episodes that show them obey no code."""
    merge: Annotated[
        tuple[Annotated[tuple[ModeNumber, ...], Field(min_length=2, max_length=1024)], ...], Field(max_length=1024)
    ] = ()
    """Groups of modes that share one code."""
    names: Annotated[tuple[Annotated[str, Field(max_length=40)], ...], Field(max_length=1024)] = ()
    """What each mode is called; empty for one without a name. A code has the name of its first mode that has one."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        count = len(self.demonstrations)
        decided = [*self.drop, *(mode for group in self.merge for mode in group)]
        if not count and (decided or self.names):
            raise ValueError("demonstrations must say how many each mode has: let `bmd-pipeline modes` write the file")
        if unknown := [mode for mode in decided if mode >= count]:
            raise ValueError(f"demonstrations are of {count} modes, from 0 on; there is no mode {unknown[0]}")
        if twice := [mode for mode in decided if decided.count(mode) > 1]:
            raise ValueError(f"mode {twice[0]} must be dropped or merged once")
        if self.names and len(self.names) != count:
            raise ValueError(f"names must be {count}, one for each mode, got {len(self.names)}")
        for name in self.names:
            if name != name.strip() or not name.isprintable():
                raise ValueError(f"names must be printable, without spaces around them, got {name!r}")
        given = [name for name in self.names_by_code() if name]
        if same := [name for name in given if given.count(name) > 1]:
            raise ValueError(f"names must tell codes apart, and two are called {same[0]}")
        if count and (left := len(set(self.codes()) - {None})) < 2:
            raise ValueError(f"drop and merge must leave two codes, and leave {left}")
        return self

    def require_sizes(self, found: Sequence[int]) -> None:
        """Checks that what was decided, if anything, is about modes of as many demonstrations as were found.

        Raises:
            ConfigError: it is about others.
        """
        if self.demonstrations and list(self.demonstrations) != list(found):
            raise ConfigError(
                f"modes.demonstrations are {list(self.demonstrations)}, but the modes that were found have "
                f"{list(found)}: what was decided is of other modes; move its file in config/modes/ away, and decide "
                "again"
            )

    def codes(self) -> tuple[int | None, ...]:
        """The code of each mode; None if it is dropped. Codes are in the order of their first modes."""
        first = {mode: min(group) for group in self.merge for mode in group}
        kept = [mode for mode in range(len(self.demonstrations)) if mode not in self.drop]
        numbers = {mode: code for code, mode in enumerate(mode for mode in kept if first.get(mode, mode) == mode)}
        return tuple(
            None if mode in self.drop else numbers[first.get(mode, mode)] for mode in range(len(self.demonstrations))
        )

    def names_by_code(self) -> tuple[str | None, ...]:
        """The name of each code; None for one without. Empty where nothing was decided."""
        codes = self.codes()
        by_code: dict[int, str | None] = {code: None for code in codes if code is not None}
        for code, name in zip(codes, self.names or ("",) * len(codes), strict=True):
            if code is not None and name and by_code[code] is None:
                by_code[code] = name
        return tuple(by_code.values())


class CurriculumConfig(Section):
    """Short-to-long horizon: episodes grow from a share of the horizon to all of it."""

    start_fraction: float = Field(1.0, gt=0.0, le=1.0)
    """H_0 as a share of the task's horizon; 1 switches the curriculum off."""
    iterations: int = Field(1, ge=1, le=1_000_000)
    """Iterations until episodes have their full length."""


class DenoiserConfig(Section):
    """What `dppo` and `dppo-bmd` train: the denoiser (arXiv 2409.00588). Defaults are its authors', unless said. `fbc`
    and `fbc-bmd` explore and act by the same settings."""

    precision: Literal["float32", "bfloat16"] = "float32"
    """What its matrices are multiplied in while PPO learns, for wide ones on devices with bfloat16 units; how it acts,
    weights, log-probabilities and losses stay float32."""
    learning_rate: float = Field(1e-4, gt=0.0, le=1.0)
    """Learning rate of the denoiser."""
    clip_ratio: float = Field(0.01, gt=0.0, le=1.0)
    """Clip range ε of a denoising step's probability ratio, which is that of a dimension's mean log-probability and so
    close to 1."""
    target_kl: float = Field(1.0, gt=0.0, le=10.0)
    """The denoiser stops updating on a rollout once the approximate KL of a denoising step exceeds 1.5 times this; as
    log_prob_reduction has it, of a dimension or of the whole."""
    eta: float = Field(1.0, ge=0.0, le=1.0)
    """η of the DDIM sampler while exploring: the share of the posterior's noise that every denoising step adds."""
    acting_eta: float | None = Field(None, ge=0.0, le=1.0)
    """η of the DDIM sampler when deployed; 0 draws nothing but the starting noise. null: that of the policy's own
    sampler, 0 for ddim and 1 for ddpm, so that fine-tuning starts from the base policy."""
    noise_floor: float = Field(0.1, gt=0.0, le=2.0)
    """Smallest standard deviation of a denoising step while exploring, in normalised units."""
    log_prob_steps: Literal["executed", "chunk"] = "executed"
    """Which actions of a chunk count in its log-probability: those that are executed, or all."""
    log_prob_reduction: Literal["mean", "sum"] = "mean"
    """mean: the log-probability per dimension, so that ratios and KL do not depend on the size of a chunk; sum: that of
    the whole, whose ratios soon leave the clip range."""
    kl_weight: float = Field(0.0, ge=0.0, le=1000.0)
    """Weight in PPO's loss of the KL divergence from the policy that fine-tuning began with, under the same code where
    there is one: summed over denoising steps, per dimension or of the whole, as log_prob_reduction has it. 0: none."""
    steps: int = Field(0, ge=0, le=1000)
    """Fine-tune only the last denoising steps; 0: all of them."""
    denoising_discount: float = Field(0.95, gt=0.0, le=1.0)
    """Discount of the advantage per denoising step before the last (DPPO's γ_denoise): noisier steps get less of it."""


class CloningConfig(Section):
    """How `fbc` and `fbc-bmd` clone their own successful episodes into the denoiser."""

    steps: int = Field(100, ge=1, le=100_000)
    """Gradient steps after each rollout."""
    learning_rate: float = Field(1e-3, gt=0.0, le=1.0)
    """Learning rate of Adam, by default that of pre-training: with DPPO's, a tenth of it, the network lagged behind and
    success fell on GaussianMixture."""


class ResidualConfig(Section):
    """What `res` and `res-bmd` train: a bounded correction of each action of the frozen policy (arXiv 2412.13630)."""

    learning_rate: float = Field(3e-4, gt=0.0, le=1.0)
    """Learning rate of the residual."""
    scale: float = Field(0.3, gt=0.0, le=10.0)
    """Bound on the correction, in normalised action units."""
    hidden_sizes: Widths = (256, 256, 256)
    """Widths of its hidden layers."""
    progressive_iterations: int = Field(20, ge=0, le=1_000_000)
    """Iterations over which the share of corrected steps grows from 0 to 1 while exploring; 0: all from the start."""


class RegulariserConfig(Section):
    """The mutual-information regulariser of the `-bmd` methods.

    published: the reward is r_env + λ·r_int. coded (ours): λ weighs the advantages of the two, each standardised and
    from a value head of its own, so that it does not depend on the scale of the reward.
    """

    mi_weight: float = Field(0.5, ge=0.0, le=1000.0)
    """λ, where `finetune.obedience` states no demand that decides it."""
    gamma: float | None = Field(None, gt=0.0, le=1.0)
    """coded: discount of the intrinsic stream; null: that of the environment's reward. A behaviour may be decided long
    before it shows."""
    gae_lambda: float | None = Field(None, ge=0.0, le=1.0)
    """coded: λ of its generalised advantage estimation; null: the environment's."""
    inference_steps: int | None = Field(None, ge=0, le=10_000)
    """Gradient steps of the inference model after each rollout; null: none in the coded form, where hindsight has
    taught it, and as many as in discovery in the published one."""
    floor: float = Field(-3.0, le=0.0, ge=-100.0)
    """Ours: lower bound of log q(z|h) − log p(z) in the reward, so that one badly recognised step can't outweigh an
    episode. Measured information has no floor."""
    success_only: bool = False
    """Pays the intrinsic reward in episodes that succeed alone, as SMERL does where the return is close to the best
    (Kumar et al. 2020, arXiv 2010.14484)."""


class SelectionConfig(Section):
    """Which iteration is kept: the best on selection seeds, which evaluation never uses."""

    interval: int = Field(20, ge=1, le=1_000_000)
    """Iterations between two selection rounds."""
    episodes: int = Field(512, ge=1, le=1_000_000)
    """Episodes of a selection round."""
    min_obeyed_share: float = Field(0.9, ge=0.0, le=1.0)
    """With codes (ours), an iteration qualifies only if they are obeyed at least this share as often as before
    fine-tuning, and no code succeeds significantly less often; 0: success alone decides."""


class FinetuneConfig(Section):
    """Fine-tuning with PPO, or by filtered behaviour cloning (`fbc`). The method is not a setting but part of the
    output's path."""

    iterations: int = Field(100, ge=1, le=1_000_000)
    """Rollout-and-update rounds."""
    num_envs: int = Field(512, ge=1, le=1_000_000)
    """Environments per rollout."""
    target_entropy: float | None = Field(0.0, ge=-5.0, le=1.4)
    """Lower bound on the steering policy's entropy, in nats per steered dimension (the prior's is 1.42): the weight of
    an entropy bonus adapts to hold it, as in DSRL (arXiv 2506.15799). null: no such bonus."""
    balance_codes: bool = True
    """coded (ours): balances codes by their success: advantages are standardised within each code, and a code is drawn
    the more often the more it fails. false: codes in equal numbers, advantages standardised over all of them."""
    pay_only_obeyed: bool = False
    """coded (ours): positive rewards are paid, and success counts in drawing codes, only in episodes that show their
    code's behaviour; negative rewards always are. A weak code then gains nothing by showing another's behaviour."""
    obedience: float | None = Field(None, ge=0.0, lt=1.0)
    """coded (ours): share of each code's successful training episodes that must show its own behaviour, the nearest
    cluster of demonstrations. λ of each code is then the multiplier of this constraint, set by a PID controller
    (`modes.regulariser`). null: λ is `regulariser.mi_weight`."""
    deterministic: bool = True
    """Whether a deployed steering policy acts by its mean. false: by draws, for one that is still close to the prior,
    whose mean is untypical noise."""
    ppo: PPOConfig = PPOConfig()
    denoiser: DenoiserConfig = DenoiserConfig()
    residual: ResidualConfig = ResidualConfig()
    regulariser: RegulariserConfig = RegulariserConfig()
    cloning: CloningConfig = CloningConfig()
    curriculum: CurriculumConfig = CurriculumConfig()
    selection: SelectionConfig = SelectionConfig()
    snapshot_interval: int = Field(0, ge=0, le=1_000_000)
    """Iterations between two snapshots that are kept for `bmd-pipeline curve`; 0 keeps none."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.ppo.value_warmup >= self.iterations:
            raise ValueError(
                f"ppo.value_warmup must be < iterations ({self.iterations}), or the policy never learns; "
                f"got {self.ppo.value_warmup}"
            )
        return self


CODED_SETTINGS = (
    "finetune.regulariser",
    "finetune.balance_codes",
    "finetune.pay_only_obeyed",
    "finetune.obedience",
    "finetune.selection.min_obeyed_share",
)
"""Settings of fine-tuning, and a group of them, that methods without codes do not read."""


class EvaluateConfig(Section):
    """How policies are evaluated, on seeds that no training stage uses."""

    episodes: int = Field(1024, ge=8, le=1_000_000)
    """Episodes per policy and seed."""
    selection_episodes: int = Field(64, ge=8, le=1_000_000)
    """Episodes on selection seeds, which show what each code's own behaviour is; none for a policy without codes."""
    num_envs: int = Field(1024, ge=1, le=1_000_000)
    """Environments stepped together."""
    tau: float = Field(0.8, gt=0.0, le=1.0)
    """A present mode is solved when its success rate is at least τ."""
    confidence: float = Field(0.95, gt=0.5, lt=1.0)
    """Level of the reported intervals; tests have the level `alpha`, which is 1 - confidence."""
    steering: bool = True
    """False: policies that have a steering policy act without it, from prior noise; has the rest taken the modes in?"""
    disturbance: Disturbance | None = None
    """Another world for `evaluate` and `curve` alone: what does a policy withstand that was not trained for it? null:
    `task.env.disturbance`, the world of fine-tuning."""
    pictured_episodes: int = Field(96, ge=1, le=10_000)
    """Episodes drawn in the trajectory picture."""

    @property
    def alpha(self) -> float:
        """Level of every test."""
        return round(1 - self.confidence, 12)  # .05, where floats give .050000000000000044


class CompareConfig(Section):
    """How the evaluations of several methods and seeds are compared."""

    min_seeds: int = Field(5, ge=2, le=100)
    """Seeds from which a test over seeds is preferred to one over episodes, if it can decide anything."""


class VerdictConfig(Section):
    """What is claimed, decided before the results are seen: thresholds of the hypotheses H1 to H3, beside
    `evaluate.tau` and `evaluate.confidence`."""

    success_margin: float = Field(0.02, ge=0.0, lt=1.0)
    """H1: success may be lower than with plain fine-tuning by this much."""


def _known(method: str) -> str:
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}; {suggest(method, METHODS)}")
    return method


Method = Annotated[str, AfterValidator(_known)]
"""Name of a fine-tuning method."""
AxisValue = bool | int | float | str | None
"""One value of a setting that a grid varies."""
MAX_CELLS = 1000


def _read_axis_value(value: Any) -> Any:
    """Numbers as numbers: Snakemake's --config hands all nested values over as text."""
    if isinstance(value, Untyped) and re.fullmatch(rf"{NUMBER}|true|false|null", value):
        value = json.loads(re.sub(r"^\+", "", value)) if "." not in value else float(value)
    if not isinstance(value, AxisValue) or (isinstance(value, float) and not math.isfinite(value)):
        # here, since pydantic refuses a union once for each of its members
        raise ValueError(f"must be a finite number, text, true, false or null, got {value!r:.60}")
    return value


AxisValues = Annotated[
    tuple[Annotated[AxisValue, BeforeValidator(_read_axis_value)], ...], Field(min_length=1, max_length=64)
]


def _flatten_axes(axes: Any) -> Any:
    """Axes by dotted name, also where the name was given as groups: `--set grid.axes.finetune.iterations=[10, 20]`."""
    return flatten(axes) if isinstance(axes, Mapping) else axes


class GridConfig(Section):
    """Methods are fine-tuned and evaluated with every combination of some settings' values."""

    axes: Annotated[dict[str, AxisValues], Field(max_length=8), BeforeValidator(_flatten_axes)] = {}
    """Values by the dotted name of a setting below `discover` or `finetune`, as
    `{finetune.regulariser.mi_weight: [0, 0.1, 1], discover.num_modes: [2, 8]}`. Where the run finds the number of modes
    by itself, an axis `discover.num_modes` makes it a given one, taken by k-means."""
    methods: Annotated[tuple[Method, ...], Field(max_length=len(METHODS)), Once] = ()
    """Methods that are run in every cell; none: the run's with codes."""
    seeds: Annotated[tuple[Seed, ...], Field(max_length=1000), Once] = ()
    """Training seeds in every cell; none: the run's."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for name, values in self.axes.items():
            if name.partition(".")[0] not in ("discover", "finetune") or "." not in name:
                raise ValueError(f"axes must be settings below discover or finetune, got {name!r}")
            texts = [format_axis_value(value) for value in values]
            if len(set(texts)) != len(texts):
                raise ValueError(f"axes must not repeat a value, got {list(values)} for {name}")
            if unsafe := [text for text in texts if not re.fullmatch(r"[A-Za-z0-9_.+-]+", text)]:
                raise ValueError(f"axes must have values that can name a folder, got {unsafe[0]!r} for {name}")
        if (cells := math.prod(map(len, self.axes.values()))) > MAX_CELLS:
            raise ValueError(f"axes must make at most {MAX_CELLS} cells, got {cells}")
        return self


def format_axis_value(value: AxisValue) -> str:
    """A value as folders and pages show it: 0.1, 8, true, kmeans."""
    return value if isinstance(value, str) else json.dumps(value).removesuffix(".0")


class PoolConfig(Section):
    """Which base policies results/<Task>/pool.json speaks about."""

    bases: Annotated[tuple[Seed, ...], Field(min_length=2, max_length=1000), Once] = (0, 1, 2)
    """Root seeds: each k is the task <Task>-base<k>, with demonstrations, policy and modes of its own."""


class ThreadsConfig(Section):
    """Cores each stage asks for; simulator tasks start that many worker processes.

    A job takes no more than there are for it, nor does torch more than OMP_NUM_THREADS says.
    """

    collect: int = Field(1, ge=1, le=1024)
    """Processes that demonstrate at the same time."""
    pretrain: int = Field(1, ge=1, le=1024)
    """Cores of torch."""
    discover: int = Field(1, ge=1, le=1024)
    """Cores of torch, or simulator processes."""
    finetune: int = Field(1, ge=1, le=1024)
    """Cores of torch, or simulator processes."""
    evaluate: int = Field(1, ge=1, le=1024)
    """Cores of torch, or simulator processes; also of what comes after."""


class ExecutionConfig(Section):
    """Devices, cores, checkpoints and tracking; they enter no hash.

    They change no result, but for what rounds otherwise: kernels of matrix products, and a CUDA device, which draws
    other random numbers besides, so that a run on it is another sample of the same thing. What would change the physics
    is a setting of the task, `task.physics`.
    """

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where networks live; auto takes CUDA where there is one. Random draws differ between devices. Episodes of a task
    that a simulator steps are played and learnt from on the CPU all the same, unless `task.physics` is cuda."""
    cuda_matmul: Literal["float32", "tf32"] = "float32"
    """How a CUDA device multiplies float32 matrices; tf32 keeps ten bits of the fraction."""
    cpu_matmul: Literal["auto", "mkl", "onednn"] = "auto"
    """Whose kernels multiply float32 matrices on a CPU; auto: oneDNN's on AMD's, where MKL's take twice as long."""
    cuda_graphs: bool = False
    """On a CUDA device, launch decisions, PPO's minibatches and the steps of native tasks as CUDA graphs instead of
    kernel by kernel: the same draws, faster where batches are small. No effect on the CPU."""
    threads: ThreadsConfig = ThreadsConfig()
    mem_mb: int | None = Field(None, ge=100, le=10_000_000)
    """Memory a job asks a cluster for at its first attempt; null: as usual for its stage."""
    runtime_minutes: int | None = Field(None, ge=1, le=100_000)
    """Time a job asks a cluster for; null: as usual for its stage."""
    checkpoint_minutes: float = Field(5.0, ge=0.0, le=10_000.0)
    """A stage saves at the first point from which it can resume after so long; 0 saves at every such point."""
    max_minutes: float | None = Field(None, gt=0.0, le=1_000_000.0)
    """Training stages save and stop after that many minutes, to be run again (`--max-minutes`); null: they never do."""
    wait_minutes: float = Field(0.0, ge=0.0, le=1_000_000.0)
    """How long a stage waits for another job that writes the same output; if that one wrote what this one would, it is
    taken. 0 refuses at once. Jobs of a workflow wait for their own time limit, since some outlive their Snakemake."""
    require_lock: bool = True
    """Refuse to write where the file system has no locks (flock), which keep two jobs from writing the same output;
    false: write there all the same. Where there are locks they are taken in any case."""
    tracker: Literal["none", "tensorboard", "wandb"] = "none"
    """Also report metrics to TensorBoard (event files in a folder `tensorboard` beside metrics.jsonl) or to wandb
    (offline unless WANDB_MODE says otherwise); metrics.jsonl is the truth."""
    group: str | None = Field(None, min_length=1, max_length=100)
    """Name under which the tracker groups runs; null: the task's."""


class RunConfig(Section):
    """Everything that decides what a run computes, by stage."""

    task: TaskConfig
    preset: str | None = None
    """Preset whose settings these are; `--preset` or `preset:` in a file chooses it."""
    run: RunName = ""
    """Name of the run, for runs of one task that shall not replace each other: they are in `data/<Task>-<run>` and
    `results/<Task>-<run>`. Empty: in `data/<Task>` and `results/<Task>`. The preset smoke brings the name smoke."""
    seed: Seed = 0
    """Root seed: every generator of the run derives from it."""
    methods: Annotated[tuple[Method, ...], Field(min_length=1, max_length=len(METHODS)), Once] = ("dppo", "dppo-bmd")
    """Fine-tuning methods that results/<Task>/eval.json compares."""
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1, max_length=1000), Once] = (0, 1, 2)
    """Fine-tuning seeds that results/<Task>/eval.json compares."""
    collect: CollectConfig = CollectConfig()
    pretrain: PretrainConfig = PretrainConfig()
    discover: DiscoverConfig = DiscoverConfig()
    modes: ModesConfig = ModesConfig()
    finetune: FinetuneConfig = FinetuneConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    compare: CompareConfig = CompareConfig()
    verdict: VerdictConfig = VerdictConfig()
    grid: GridConfig = GridConfig()
    pool: PoolConfig = PoolConfig()
    execution: ExecutionConfig = ExecutionConfig()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        codes, envs = self.discover.num_modes, self.finetune.num_envs
        if codes > envs:
            raise ValueError(f"discover.num_modes must be <= finetune.num_envs ({envs}), got {codes}")
        if self.discover.form == "published" and "fbc-bmd" in (*self.methods, *self.grid.methods):
            raise ValueError("discover.form must be coded for fbc-bmd, got published")
        if self.discover.form == "published" and self.modes.demonstrations:
            raise ValueError("modes must be empty in the published form: they are modes of demonstrations")
        if self.pretrain.external_policy:
            self._require_untrained((*self.methods, *self.grid.methods))
        plain = [method for method in self.grid.methods if not uses_modes(method)]
        for name in self.grid.axes:
            coded = name.startswith(("discover.", *CODED_SETTINGS))
            steers = name.startswith("discover.steering.")  # plain dsrl trains a steering policy of this shape
            if unfit := [method for method in plain if coded and not (steers and method == "dsrl")]:
                raise ValueError(f"grid.methods must use codes with an axis {name}, got {unfit[0]}")
        if self.grid.axes and not grid_methods(self):
            raise ValueError("grid.methods must name a method, since none of methods has codes")
        return self

    def _require_untrained(self, methods: tuple[str, ...]) -> None:
        """An external policy stays as it is: no method may train its denoiser, nor discovery teach it codes."""
        if trained := [method for method in methods if method_family(method) not in UNTRAINED]:
            raise ValueError(
                f"methods must be {', '.join(UNTRAINED)} or those with -bmd for pretrain.external_policy, which stays "
                f"as it is; got {trained[0]}"
            )
        if self.discover.form == "coded" and any(uses_modes(method) for method in methods):
            raise ValueError(
                "discover.form must be published for -bmd methods with pretrain.external_policy, which can't be taught "
                "codes; got coded"
            )


def grid_methods(config: RunConfig) -> tuple[str, ...]:
    """Methods that are run in every cell of the grid."""
    return config.grid.methods or tuple(method for method in config.methods if uses_modes(method))


def grid_seeds(config: RunConfig) -> tuple[int, ...]:
    """Training seeds in every cell of the grid."""
    return config.grid.seeds or config.seeds
