"""True modes of the course: the gap taken in each row of posts. For evaluation only."""

from torch import Tensor

from bmd_pipeline.environments.base import Labelling
from bmd_pipeline.tasks.avoid_point.course import MODES, Course


def label_gaps(track: Tensor, length: Tensor, success: Tensor) -> Tensor:
    """Which gaps the path took; "L-M-2" is left of the first row's post and through the second row's middle.

    See `ModeLabelling.label`; a failure is spread evenly over the modes that its gaps so far leave open.
    """
    course = Course(track.device)
    open_modes = course.compatible_modes(course.trace(track)).float()
    return open_modes / open_modes.sum(dim=1, keepdim=True)


LABELLINGS = (Labelling("gaps", MODES, label_gaps),)
