"""The projects of the workflow's tests."""

from tests.workflow.conftest import copy_of_finished, finished, project

__all__ = ["copy_of_finished", "finished", "project"]
