"""One thread per test process: small tensors gain nothing from more, and tests run side by side. No test is timed."""

from __future__ import annotations

import signal

import torch
from hypothesis import settings

torch.set_num_threads(1)
settings.register_profile("untimed", deadline=None, derandomize=True)
settings.load_profile("untimed")
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as shells start what runs in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)
