"""Floating-point operations of training, and the peak performance of devices."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from crystallm.network.config import ModelConfig

PEAKS = {
    "H200 NVL": 835, "H200": 989, "GH200": 989, "H100 PCIe": 756, "H100 NVL": 835, "H100": 989,
    "A100": 312, "A800": 312, "H800": 989, "A40": 149.7, "A30": 165, "A10": 125,
    "L40S": 362, "L40": 181, "L4": 121, "RTX A6000": 154.8, "V100": 125, "T4": 65,
}  # fmt: skip
"""Dense bfloat16 (V100, T4: float16) peaks in TFLOP/s by words of the device's name, from NVIDIA's
datasheets (figures with sparsity halved); a plain H100 or H200 is the SXM form. The longest match counts."""
_SECONDS = 0.15  # duration of a measurement
_SIZE = 1024  # rows and columns of the matrices


def count_operations(config: ModelConfig, n_weights: int, n_tokens: int, attended: float) -> float:
    """Count the operations of forward and backward pass as PaLM does (arXiv:2204.02311, app. B).

        6 N + 12 L C T    per token

    for products with N weights and attention over T tokens in L layers of width C; masks and recomputation
    are not considered.

    Args:
        n_weights: N, without position embeddings.
        n_tokens: tokens of all windows, without padding.
    """
    return 6.0 * n_weights * n_tokens + 12.0 * config.n_layer * config.n_embd * attended


def peak(device: torch.device, dtype: str = "auto") -> tuple[float, str]:
    """Return the peak operations per second of a device, and the source of the number.

    Args:
        device: a GPU in the table; others are measured by matrix products.
        dtype: of these products: `float32`, or else bfloat16.
    """
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        matches = sorted((part for part in PEAKS if re.search(rf"\b{part}\b", name)), key=len)
        if matches:
            return PEAKS[matches[-1]] * 1e12, f"data sheet of {matches[-1]}"
    kind = torch.float32 if dtype == "float32" else torch.bfloat16
    matrix = torch.randn(_SIZE, _SIZE, device=device, dtype=kind, generator=torch.Generator(device))
    torch.mm(matrix, matrix)
    best, end = float("inf"), time.perf_counter() + _SECONDS
    while time.perf_counter() < end:
        start = time.perf_counter()
        product = torch.mm(matrix, matrix)
        product[0, 0].item()  # waits for a GPU
        best = min(best, time.perf_counter() - start)
    return 2.0 * _SIZE**3 / best, "measured"
