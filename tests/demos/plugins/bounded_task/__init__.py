"""A task whose environment takes actions in units of its own: a target is hit or missed at once."""

from bmd_pipeline.tasks.registry import TaskEntry, register

register(TaskEntry("Bounded", "bounded_task", "hits a target"))
