"""ManiSkill without a display, physics resets, and the base class of simulated tasks."""

import functools
import gc
import importlib
import warnings
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bmd_pipeline.environments.base import TaskEnv, TaskSpec, VectorTask
from bmd_pipeline.environments.workers import make_parallel
from bmd_pipeline.errors import TaskError

# ---- ManiSkill without a rendering device: state-only tasks on machines that have no Vulkan driver ----
#
# `render_backend="none"` makes ManiSkill skip every visual, yet its scene builders still construct render
# materials, and SAPIEN refuses those where there is no device. `enable_headless` replaces the two classes by one that
# does nothing. Where SAPIEN finds a device, nothing is touched.
#
# Source: ManiSkill 3.0.1 and SAPIEN 3.0 sources; mani-skill/ManiSkill issues 401 and 922.

_RENDER_MODULES = (
    "sapien.render",
    "sapien.pysapien.render",
    # these two import the class names, so that replacing them at the source is not enough
    "sapien.wrapper.urdf_loader",
    "mani_skill.utils.building._mjcf_loader",
)


class NullResource:
    """Stands in for a render material or texture: takes any arguments and calls, keeps what is set on it."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        self.__dict__.update(kwargs)

    def __getattr__(self, name: str) -> Callable[..., None]:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *args, **kwargs: None


@functools.cache
def have_render_device() -> bool:
    """Whether SAPIEN finds a device that can render."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # SAPIEN warns about its own fallback to the bundled Vulkan loader
        render: Any = importlib.import_module("sapien.render")
        try:
            render.RenderMaterial()
        except RuntimeError:
            return False
    return True


@functools.cache
def enable_headless() -> None:
    """Prepares SAPIEN and ManiSkill for building scenes; call it before any environment is made."""
    if have_render_device():
        return
    for name in _RENDER_MODULES:
        # importlib, not attribute access: ManiSkill's package re-exports a function under the module's name
        module: Any = importlib.import_module(name)
        module.RenderMaterial = module.RenderTexture2D = NullResource


def make_maniskill_env(env_id: str, **settings: Any) -> Any:
    """Builds a registered ManiSkill environment for state-only use, on the CPU unless the settings say otherwise.

    It is the unwrapped `BaseEnv`, already reset once. GPU simulation that can't start is a TaskError.
    """
    enable_headless()
    gymnasium: Any = importlib.import_module("gymnasium")
    importlib.import_module("mani_skill.envs")
    defaults = {"num_envs": 1, "obs_mode": "state", "sim_backend": "physx_cpu", "render_backend": "none"}
    arguments: dict[str, Any] = defaults | settings
    # ManiSkill collects garbage each time it builds a scene; walking through all living objects, torch's too, would
    # take four fifths of the time, so what exists now is kept out of it.
    gc.freeze()
    try:
        return gymnasium.make(env_id, **arguments).unwrapped
    except Exception as error:  # a device, a driver, or PhysX's library for GPUs, which SAPIEN downloads
        if not str(arguments["sim_backend"]).startswith("physx_cuda"):
            raise
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise TaskError(f"task.physics is cuda, but {env_id} can't start there ({reason}); set it to cpu") from error
    finally:
        gc.unfreeze()


# ---- Resets that leave nothing behind ----
#
# Placing bodies at their start poses doesn't reset PhysX: contact caches, sleep timers and the order of contact
# pairs survive, and contact turns differences of 1e-7 into other trajectories. Moving the bodies into a new
# physics system takes a third of a millisecond and makes an episode depend on its start and its actions alone.


def reset_physics(env: Any) -> None:
    """Moves every body of an unwrapped ManiSkill environment into a new, empty physics system.

    The environment has `num_envs=1` on the CPU and `render_backend="none"`. Call it first thing in a reset; poses,
    velocities and drive targets stay what they are.
    """
    sapien: Any = importlib.import_module("sapien")
    scene = env.scene
    old = scene.sub_scenes[0]
    env._set_scene_config()  # a new system takes gravity and solver settings from SAPIEN's global ones
    new = sapien.Scene([sapien.physx.PhysxCpuSystem()])
    new.set_timestep(scene.px.timestep)
    entities = list(old.entities)
    for entity in entities:
        old.remove_entity(entity)
    for entity in entities:
        new.add_entity(entity)
    scene.sub_scenes = [new]
    scene.px = new.physx_system


# ---- Scenes in numbers: how a task places, moves and reads what it simulates, wherever that runs ----
#
# A start is a row of numbers that says how an episode begins, a state a row of numbers that says how things are. Each
# task fixes their columns; nothing here knows them.


class Scene(Protocol):
    """One scene on the CPU. Starts, actions and states are floats: a torch call would take as long as the physics."""

    def place(self, start: Sequence[float]) -> None:
        """Resets the scene to a start, at rest; no simulator state of earlier episodes may survive."""

    def move(self, action: Sequence[float]) -> None:
        """One control step with an action in [-1, 1]."""

    def read(self) -> Sequence[float]:
        """The scene's state."""


class SceneList:
    """Scenes in this process, stepped one after the other; those that aren't active cost nothing."""

    def __init__(self, scenes: Sequence[Scene]) -> None:
        self.scenes = list(scenes)
        # Gathered in NumPy: a small tensor for each scene and step takes 10 µs, a row of an array 1.
        self._state = np.array([scene.read() for scene in scenes], np.float32)

    def place(self, start: Tensor) -> Tensor:
        """Resets all scenes to start (num_envs, start_dim); returns their state (num_envs, state_dim)."""
        for row, begin in enumerate(start.tolist()):
            self.scenes[row].place(begin)
            self._state[row] = self.scenes[row].read()
        return torch.from_numpy(self._state.copy())

    def move(self, action: Tensor, active: Tensor) -> Tensor:
        """One control step of the scenes where active (num_envs,) is True, with action (num_envs, action_dim).

        Returns their state (num_envs, state_dim); rows of other scenes mean nothing.
        """
        actions = action.tolist()
        for row in active.nonzero()[:, 0].tolist():
            self.scenes[row].move(actions[row])
            self._state[row] = self.scenes[row].read()
        return torch.from_numpy(self._state.copy())

    def close(self) -> None:
        self.scenes = []


class BatchedScenes:
    """Scenes of one `StartedEnv`, in batched tensors, with the methods of `SceneList`: ManiSkill's GPU simulation.

    Not yet run on a GPU: SAPIEN downloads PhysX's GPU library at first use, and the GPU machine had no network. It is
    exercised on the CPU, where ManiSkill offers the same interface for one scene; only the calls that move data to
    and from the GPU's buffers are untried. Scenes that aren't active go on being simulated under zero actions, unread,
    until they are placed anew.
    """

    def __init__(self, env_id: str, num_envs: int, device: torch.device, **settings: Any) -> None:
        where = "physx_cpu" if device.type != "cuda" else str(device).replace("cuda", "physx_cuda")
        self.env: Any = make_maniskill_env(env_id, num_envs=num_envs, sim_backend=where, **settings)

    def place(self, start: Tensor) -> Tensor:
        self.env.reset(options={"start": start})
        return self._read()

    def move(self, action: Tensor, active: Tensor) -> Tensor:
        self.env._step_action(self._complete(torch.where(active[:, None], action, torch.zeros_like(action))))
        return self._read()

    def close(self) -> None:
        self.env.close()

    def _complete(self, action: Tensor) -> Tensor:
        """The controller's action for one of the task (num_envs, action_dim)."""
        return action

    def _read(self) -> Tensor:
        """State (num_envs, state_dim)."""
        state: Tensor = self.env.read_state()
        return state


# ---- Tasks whose episodes are simulated: seeds, starts and states, whatever simulates them ----


class SceneTask(VectorTask):
    """Base of tasks whose states come from scenes.

    Subclasses say how an episode starts, what a step is worth and what is seen of a state, as functions of tensors; so
    the CPU and the GPU mean the same.

    Args:
        first_row: number of the first scene among all workers' scenes.
        batched: whether to use ManiSkill's batched interface. None: on CUDA devices only. On the CPU it supports
            num_envs = 1.

    Attributes:
        simulation: the scenes.
        state: (num_envs, STATE_DIM) float32.
    """

    NAME: ClassVar[str]  # this and the next six: see `TaskSpec`
    OBS_NAMES: ClassVar[tuple[str, ...]]
    ACTION_DIM: ClassVar[int]
    TRACK_NAMES: ClassVar[tuple[str, ...]]
    PLANAR: ClassVar[tuple[str, str]] = ("x", "y")
    PLANAR_UNITS: ClassVar[tuple[str, str]] = ("m", "m")
    CONTROL_HZ: ClassVar[float] = 20.0
    STATE_DIM: ClassVar[int]  # size of a scene's state
    RANDOM_DIM: ClassVar[int]  # how many random numbers an episode's start is made of
    ENV_MODULE: ClassVar[str | None] = None
    """Module that names the ManiSkill environment `ENV_ID`, and registers it if it isn't ManiSkill's own. None for
    other simulators, which stay on the CPU where a CUDA device would select ManiSkill's GPU simulation."""
    # builds a scene on the CPU, from the name of its ManiSkill environment if it has one
    SCENE: ClassVar[Callable[..., Scene]]
    # builds all scenes in one batch; the default takes a `StartedEnv`
    BATCH: ClassVar[Callable[..., BatchedScenes]] = BatchedScenes

    def __init__(
        self,
        options: Any,
        num_envs: int,
        first_row: int = 0,
        *,
        device: torch.device | str = "cpu",
        batched: bool | None = None,
    ) -> None:
        super().__init__(num_envs, device)
        self.options = options
        self.spec = self.make_spec(options)
        self._first_row = first_row
        names = () if self.ENV_MODULE is None else (importlib.import_module(self.ENV_MODULE).ENV_ID,)
        self.simulation: Any
        if batched or (batched is None and self.device.type == "cuda"):
            self.simulation = self.BATCH(*names, num_envs, self.device)
        else:
            self.simulation = SceneList([self.SCENE(*names) for _ in range(num_envs)])
        self.state = torch.zeros(num_envs, self.STATE_DIM, device=self.device)

    @classmethod
    def make_spec(cls, options: Any) -> TaskSpec:
        """Fixed facts of the task."""
        return TaskSpec(
            cls.NAME,
            obs_dim=len(cls.OBS_NAMES),
            action_dim=cls.ACTION_DIM,
            track_names=cls.TRACK_NAMES,
            planar=cls.PLANAR,
            planar_units=cls.PLANAR_UNITS,
            horizon=options.horizon,
            control_hz=cls.CONTROL_HZ,
            obs_names=cls.OBS_NAMES,
        )

    @classmethod
    def make_env(cls, options: Any, num_envs: int, *, device: torch.device | str, num_workers: int) -> TaskEnv:
        """Builds environments of the task; see `registry.make_env`."""
        if cls.ENV_MODULE and torch.device(device).type == "cuda":
            return cls(options, num_envs, device=device)
        return make_parallel(functools.partial(cls, options), num_envs, num_workers, device)

    def _draw_random(self, generator: np.random.Generator) -> NDArray[np.float64]:
        """Random numbers (RANDOM_DIM,) of one start, uniform in [0, 1); a task may draw others."""
        return generator.random(self.RANDOM_DIM)

    @abstractmethod
    def _make_start(self, random: Tensor) -> Tensor:
        """Starts (n, start_dim) from what `_draw_random` drew, (n, RANDOM_DIM)."""

    @abstractmethod
    def _evaluate(self, before: Tensor, after: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Reward, terminated and success of a control step, each (num_envs,), from the states (num_envs, STATE_DIM).

        The states are equal where nothing was moved; what is returned for these rows is ignored.
        """

    def _begin(self) -> None:
        """Called when new episodes began; `state` is up to date."""

    def _reset(self, seed: int) -> None:
        rows = range(self._first_row, self._first_row + self.num_envs)
        # a start depends on the seed and the scene's number alone
        random = np.stack([self._draw_random(np.random.default_rng((seed, row, 0))) for row in rows])
        self.state = self.simulation.place(self._make_start(torch.from_numpy(random).float().to(self.device)))
        self._begin()

    def _advance(self, action: Tensor, active: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        before = self.state
        self.state = torch.where(active[:, None], self.simulation.move(action, active), before)
        return self._evaluate(before, self.state)

    def close(self) -> None:
        self.simulation.close()
