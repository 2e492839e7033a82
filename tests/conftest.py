"""One thread per test process: small tensors gain nothing from more, and tests run side by side."""

from __future__ import annotations

import torch

torch.set_num_threads(1)
