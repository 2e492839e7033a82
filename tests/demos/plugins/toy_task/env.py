from bmd_pipeline.environments.base import TaskSpec
from toy_task.options import Options


def make_spec(options: Options) -> TaskSpec:
    return TaskSpec("Toy", obs_dim=2, action_dim=1, track_names=("x", "y"), planar=("x", "y"), horizon=10)
