"""What the rules share: the pipeline that answers them, and the wildcards' shapes."""

from bmd_pipeline.io.layout import EPISODES_FILE, FINETUNED_NAMES, MODES_NAMES, PATHS_FILE, RUN_FILE
from bmd_pipeline.workflow import TASK, Pipeline, within


wildcard_constraints:
    task=TASK,
    method=r"(?!(modes|pretrained|taught)/)[A-Za-z0-9-]+",  # any name gets in, so that its refusal can say which there are
    policy=r"(?!modes/)[A-Za-z0-9-]+",
    cell="[A-Za-z0-9_.,=+-]+",
    seed="0|[1-9][0-9]*",


pipeline = Pipeline(
    config,
    stored=workflow.storage_settings.default_storage_provider is not None,
    planning=workflow.is_main_process,
    config_files=workflow.overwrite_configfiles,
    cores=workflow.resource_settings.cores if workflow.resource_settings.nodes is None else None,
)
paths = pipeline.paths
