"""One thread per test process: small tensors gain nothing from more, and tests run side by side. No test is timed."""

from __future__ import annotations

import torch
from hypothesis import settings

torch.set_num_threads(1)
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
