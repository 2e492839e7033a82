"""A task that needs no simulator: its expert succeeds, dawdles or crashes as told."""

from bmd_pipeline.tasks.registry import TaskEntry, register

register(TaskEntry("Toy", "toy_task", "a toy"))
