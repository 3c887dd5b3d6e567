"""What the hardware could do at most, and what training asks of it, in floating-point operations.

Knows devices and sizes of networks, not how they are trained.
"""

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
"""Dense bfloat16 (V100, T4: float16) peaks in TFLOP/s by words of the device's name, from NVIDIA's data
sheets, whose figures with sparsity are halved; a plain H100 or H200 is the SXM form. The longest
that fits counts."""

_SECONDS = 0.15  # that a measurement takes

_SIZE = 1024  # of the matrices


def operations(config: ModelConfig, n_weights: int, n_tokens: int, attended: float) -> float:
    """Floating-point operations of forward and backward pass as PaLM counts (arXiv:2204.02311, app. B).

    6 N a token for the products with N weights, and 12 L C T a token for attention over T tokens in L layers
    of width C; what is masked or computed anew is not taken off or added.

    Args:
        config: of the network.
        n_weights: N, without position embeddings, which are looked up.
        n_tokens: tokens of all windows, without padding.
        attended: sum of T over these tokens.
    """
    return 6.0 * n_weights * n_tokens + 12.0 * config.n_layer * config.n_embd * attended


def peak(device: torch.device, dtype: str = "auto") -> tuple[float, str]:
    """Operations a second that one device does at most, and where the number comes from.

    Args:
        device: a GPU in the table, or what is measured by products of matrices for a moment.
        dtype: of these products: `float32`, or else bfloat16.
    """
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        known = sorted((part for part in PEAKS if re.search(rf"\b{part}\b", name)), key=len)
        if known:
            return PEAKS[known[-1]] * 1e12, f"data sheet of {known[-1]}"
    kind = torch.float32 if dtype == "float32" else torch.bfloat16
    one = torch.randn(_SIZE, _SIZE, device=device, dtype=kind, generator=torch.Generator(device))
    torch.mm(one, one)
    best, end = float("inf"), time.perf_counter() + _SECONDS
    while time.perf_counter() < end:
        start = time.perf_counter()
        product = torch.mm(one, one)
        product[0, 0].item()  # which waits for a GPU
        best = min(best, time.perf_counter() - start)
    return 2.0 * _SIZE**3 / best, "measured"
