"""The best matrix multiplication this machine does: ``python -m peers.matmul THREADS DEVICE PRECISION``.

Prints GFLOP/s: the fastest of several shapes as they occur in encoders, and of large squares; each shape is repeated
and its best time counts, so the figure is a ceiling, not an average.
"""

from __future__ import annotations

import sys
import time

import torch

SHAPES = [(2048, 2048, 2048), (4096, 768, 3072), (4096, 3072, 768), (4096, 256, 1024), (1024, 1024, 1024)]
SECONDS_A_SHAPE = 0.5


def peak(device: str, dtype: torch.dtype) -> float:
    best = 0.0
    scale = 4 if device == "cuda" else 1
    for rows, inner, columns in SHAPES:
        left = torch.randn(scale * rows, inner, device=device, dtype=dtype)
        right = torch.randn(inner, columns, device=device, dtype=dtype)
        out = left @ right
        end = time.perf_counter() + SECONDS_A_SHAPE
        while time.perf_counter() < end:
            _wait(device)
            started = time.perf_counter()
            torch.mm(left, right, out=out)
            _wait(device)
            best = max(best, 2 * scale * rows * inner * columns / (time.perf_counter() - started))
    return best / 1e9


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[1]))
    print(peak(sys.argv[2], torch.bfloat16 if sys.argv[3] == "bf16" else torch.float32))
