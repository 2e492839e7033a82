from typing import Literal

from bmd_pipeline.config.schema import Section


class Options(Section):
    success_rate: float = 0.7
    failure: Literal["none", "exit", "raise", "task_error"] = "none"
    dawdle: bool = False
