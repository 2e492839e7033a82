"""An expert for each of the 24 ways through the course."""

from bmd_pipeline.tasks.avoid.env import AvoidTask
from bmd_pipeline.tasks.avoid.options import Options
from bmd_pipeline.tasks.avoid_point.expert import CourseExpert


class AvoidExpert(CourseExpert[AvoidTask]):
    """Moves the arm; its lines stay where the robot can still correct outwards."""

    reach = 0.75


def make_expert(options: Options) -> AvoidExpert:
    return AvoidExpert(AvoidTask(options, 1), options.expert_noise)
