"""Fine-tune multimodal diffusion policies without losing their behavioural modes. From Python: `bmd_pipeline.api`."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bmd_pipeline.api import (
        Played,
        Policy,
        Run,
        collect,
        discover,
        evaluate,
        finetune,
        load_policy,
        make_env,
        play,
        pretrain,
    )

__version__ = "0.1.0"
__all__ = [
    "Played",
    "Policy",
    "Run",
    "collect",
    "discover",
    "evaluate",
    "finetune",
    "load_policy",
    "make_env",
    "play",
    "pretrain",
]


if not TYPE_CHECKING:  # a type checker knows the names above, and no others

    def __getattr__(name: str) -> Any:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from bmd_pipeline import api  # torch comes with it, which the command line must not wait for

        return getattr(api, name)

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})  # what notebooks complete
