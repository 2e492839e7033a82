from bmd_pipeline.config.base import Section


class Options(Section):
    """None."""
