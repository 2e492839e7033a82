"""The command `bmd-pipeline`, which `python -m bmd_pipeline` is as well."""

import signal
import sys


def main() -> int:
    """Runs the command line of the process, and returns its exit status; Ctrl-C ends it while modules are read."""
    heard = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if heard:  # Python would answer by a traceback
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from bmd_pipeline.cli.main import main as run

    if heard:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    return run()


if __name__ == "__main__":
    sys.exit(main())
