from bmd_pipeline.config.schema import Section


class Options(Section):
    """None."""
