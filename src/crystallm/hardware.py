"""What the hardware could do at most, and what training asks of it, in floating-point operations.

Knows devices and sizes of networks, not how they are trained.
"""

from __future__ import annotations

import math
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from crystallm.errors import InputError

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


def devices_of(text: str) -> tuple[str, ...]:
    """The devices that an option names: one, several with commas between, or `all` GPUs of this machine.

    Raises:
        InputError: no GPU, a name that is none, or one that stands there twice.
    """
    if text == "all":
        if not torch.cuda.is_available():
            raise InputError("device = 'all': there is no GPU here; try 'cpu' or 'auto'")
        return tuple(f"cuda:{number}" for number in range(torch.cuda.device_count()))
    names = tuple(name.strip() for name in text.split(","))
    if "" in names or len(set(names)) < len(names):
        raise InputError(f"device = {text!r}: write each once, such as cuda:0,cuda:1")
    return names


def use_threads(n: int | None) -> int:
    """Let the network compute on so many threads of this process.

    Args:
        n: how many; None: as many as torch takes by itself (`OMP_NUM_THREADS`, or else the cores that this
            process may run on), but no more than a container's share of processors.

    Returns:
        How many there are now.

    Raises:
        InputError: fewer than one.
    """
    if n is None:
        quota = _quota()
        n = torch.get_num_threads()
        if quota < n:
            n = max(1, math.floor(quota))
    if n < 1:
        raise InputError(f"threads = {n}: write a whole number from 1")
    torch.set_num_threads(n)
    return n


def _quota(path: Path = Path("/sys/fs/cgroup/cpu.max")) -> float:
    """Processors' time that a container may use (Linux, cgroup 2); infinite where nothing is said of it."""
    try:
        most, period = path.read_text(encoding="ascii").split()
        return math.inf if most == "max" else int(most) / int(period)
    except (OSError, ValueError):
        return math.inf


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
