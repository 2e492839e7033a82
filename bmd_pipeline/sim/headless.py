"""ManiSkill without a rendering device: state-only tasks on machines that have no Vulkan driver.

`render_backend="none"` makes ManiSkill skip every visual, yet its scene builders still construct render
materials, and SAPIEN refuses those where there is no device. `enable` replaces the two classes by inert
ones. Where SAPIEN finds a device, nothing is touched.

Source: ManiSkill 3.0.1 and SAPIEN 3.0 sources; mani-skill/ManiSkill issues 401 and 922.
"""

from __future__ import annotations

import functools
import gc
import importlib
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from bmd_pipeline.errors import TaskError

_RENDER_MODULES = (
    "sapien.render",
    "sapien.pysapien.render",
    # these two import the class names, so that replacing them at the source is not enough
    "sapien.wrapper.urdf_loader",
    "mani_skill.utils.building._mjcf_loader",
)


class _Inert:
    """Stands in for a render resource: takes any arguments and calls, keeps what is set on it."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        self.__dict__.update(kwargs)

    def __getattr__(self, name: str) -> Callable[..., None]:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *args, **kwargs: None


class NullMaterial(_Inert):
    """A render material that nothing will render."""


class NullTexture(_Inert):
    """A texture that nothing will render."""


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
def enable() -> bool:
    """Prepares SAPIEN and ManiSkill for building scenes; call it before any environment is made.

    Returns:
        Whether a rendering device exists. If not, the render classes are inert from now on.
    """
    if have_render_device():
        return True
    for name in _RENDER_MODULES:
        # importlib, not attribute access: ManiSkill's package re-exports a function under the module's name
        module: Any = importlib.import_module(name)
        module.RenderMaterial, module.RenderTexture2D = NullMaterial, NullTexture
    return False


@contextmanager
def _shallow_collections() -> Iterator[None]:
    """Keeps what exists now out of garbage collections.

    ManiSkill collects garbage each time it builds a scene; with torch loaded, walking through all living
    objects takes four fifths of the time.
    """
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def make_env(env_id: str, **settings: Any) -> Any:
    """Builds a registered ManiSkill environment for state-only use, on the CPU unless the settings say otherwise.

    Args:
        env_id: ManiSkill's name of it ("PushT-v1").
        settings: further arguments of the environment, overriding the defaults given here.

    Returns:
        The unwrapped `BaseEnv`, already reset once.

    Raises:
        TaskError: GPU simulation was asked for and can't start.
    """
    enable()
    gymnasium: Any = importlib.import_module("gymnasium")
    importlib.import_module("mani_skill.envs")
    arguments: dict[str, Any] = {
        "num_envs": 1,
        "obs_mode": "state",
        "sim_backend": "physx_cpu",
        "render_backend": "none",
    }
    arguments |= settings
    with _shallow_collections():
        try:
            return gymnasium.make(env_id, **arguments).unwrapped
        except Exception as error:  # a device, a driver, or PhysX's library for GPUs, which SAPIEN downloads
            if not str(arguments["sim_backend"]).startswith("physx_cuda"):
                raise
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise TaskError(
                f"task.physics is cuda, but {env_id} can't start there ({reason}); set it to cpu"
            ) from error
