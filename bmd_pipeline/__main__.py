"""`python -m bmd_pipeline`: the same as the command `bmd-pipeline`."""

import sys

from bmd_pipeline.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
