"""How fast a network learns: our step against a plain one, in turns, and on a GPU if there is one.

    OMP_NUM_THREADS=1 python bench/training.py --repeats 5
    python bench/training.py [--compile]
    python bench/training.py --gpu [--large] [--compile]

The network is the paper's small one (8 layers, 8 heads, 512 wide, context 1024, 371 tokens), or on a GPU the
large one (16 layers, 16 heads, 1024 wide); the texts are random, of 100 to 700 tokens as those of
MP-20 in `cif`, in packed windows of up to 1,024; both sides learn from the same windows. Ours: bfloat16
products, fused GELU and AdamW, logits of targets alone. Plain: float32, GELU written by hand as the original
does, AdamW tensor by tensor, all logits. Prints tokens (without padding) a second of CPU time of this
process, so that waiting for other jobs does not count, with quartiles.

With --gpu: tokens a second of wall time and share of the dense bfloat16 peak (see `hardware`), for packed
windows and for pieces of the stream.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional

from crystallm.datasets import packing, shards
from crystallm.network.attention import segment_mask
from crystallm.network.config import ModelConfig
from crystallm.network.transformer import GPT
from crystallm.training import flops, prefetch
from crystallm.training.loss import sum_losses

if TYPE_CHECKING:
    from collections.abc import Callable

VOCABULARY = 371


def network(dropout: float, device: torch.device, *, large: bool = False) -> GPT:
    """The paper's small network, or its large one, with random weights."""
    torch.manual_seed(0)
    size: dict[str, Any] = {"n_layer": 16, "n_head": 16, "n_embd": 1024} if large else {}
    config = ModelConfig(language="cif", vocab_size=VOCABULARY, context=1024, dropout=dropout, **size)
    return GPT(config).to(device).train()


def texts(n: int) -> shards.TokenSplit:
    """Random texts as long as those of MP-20."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(100, 700, size=n)
    starts = np.cumsum([0, *lengths], dtype=np.int64)
    stream = rng.integers(VOCABULARY, size=starts[-1]).astype(np.uint16)
    return shards.TokenSplit(stream, starts, "cif", VOCABULARY)


def written_gelu(x: torch.Tensor) -> torch.Tensor:
    """Tanh GELU as the original writes it."""
    return 0.5 * x * (1.0 + torch.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * torch.pow(x, 3.0))))


def our_step(net: GPT, device: torch.device, *, compiled: bool = False) -> Callable[[packing.Batch], None]:
    """A step as `training_step` does it."""
    if compiled:
        net.compile_blocks()
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-4, fused=True)

    def step(batch: packing.Batch) -> None:
        found = sum_losses(net, batch, device, "bfloat16")
        (found.weighted / found.n).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def plain_step(net: GPT) -> Callable[[packing.Batch], None]:
    """A step without any of that."""
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-4, fused=False, foreach=False)
    for block in net.transformer.h:
        mlp: Any = block.mlp
        mlp.forward = lambda x, mlp=mlp: functional.dropout(
            mlp.c_proj(written_gelu(mlp.c_fc(x))), mlp.dropout_rate, mlp.training
        )

    def step(batch: packing.Batch) -> None:
        ids, positions = torch.from_numpy(batch.ids), torch.from_numpy(batch.positions)
        segments = torch.from_numpy(np.asarray(batch.segments))
        trunk = net.transformer
        x = functional.dropout(trunk.wte(ids) + trunk.wpe(positions), net.config.dropout)
        mask = segment_mask(segments)
        for layer, block in enumerate(trunk.h):
            x = block(x, mask, None, layer)
        logits = net.lm_head(trunk.ln_f(x))
        targets = torch.from_numpy(batch.targets)
        functional.cross_entropy(
            logits.flatten(0, 1), targets.flatten(), ignore_index=packing.IGNORE
        ).backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def on_cpu(args: argparse.Namespace) -> None:
    """Both in turns, on one thread."""
    torch.set_num_threads(1)
    device = torch.device("cpu")
    split = texts(400)
    plans = packing.plan(split.lengths, batch_tokens=4096, context=1024, rng=np.random.default_rng(0))
    # A full batch of each size of window in turn: what an epoch holds.
    full = [planned for planned in plans if planned.n_tokens > 0.6 * 4096]
    batches = [planned.fill(split) for planned in full]
    sides = {
        "ours": our_step(network(args.dropout, device), device, compiled=args.compile),
        "plain": plain_step(network(args.dropout, device)),
    }
    speeds: dict[str, list[float]] = {name: [] for name in sides}
    n_warm = len(batches) if args.compile else 1
    for turn in range(args.repeats + n_warm):
        batch = batches[turn % len(batches)]
        for name, step in sides.items():
            start = time.process_time()
            step(batch)
            if turn >= n_warm:
                speeds[name].append(batch.n_tokens / (time.process_time() - start))
    for name, found in speeds.items():
        low, middle, high = quartiles(found)
        print(
            f"{name:6} {middle:7.0f} tokens/s of CPU time "
            f"(quartiles {low:.0f} to {high:.0f}, n = {len(found)})"
        )
    ratios = [one / other for one, other in zip(speeds["ours"], speeds["plain"], strict=True)]
    low, middle, high = quartiles(ratios)
    print(f"ratio  {middle:7.2f} (quartiles {low:.2f} to {high:.2f}); dropout {args.dropout}, one thread")


def on_gpu(args: argparse.Namespace) -> None:
    """Ours, for packed windows and pieces of the stream."""
    device = torch.device("cuda")
    split = texts(4000)
    peak, origin = flops.peak(device)
    print(f"{torch.cuda.get_device_name(device)}: {peak / 1e12:.0f} TFLOP/s ({origin})")
    rng = np.random.default_rng(0)
    kinds = {
        "packed": packing.plan(split.lengths, batch_tokens=args.batch_tokens, context=1024, rng=rng),
        "random": packing.cut(
            rng.integers(len(split.stream), size=1200), batch_tokens=args.batch_tokens, window=1024
        ),
    }
    for kind, plans in kinds.items():
        net = network(args.dropout, device, large=args.large)
        step = our_step(net, device, compiled=args.compile)
        weights, speeds, shares = net.num_parameters(), [], []
        with prefetch.prefetched((planned, planned.fill(split)) for planned in plans) as ready:
            tokens, attended, start = 0, 0, time.perf_counter()
            for number, (planned, batch) in enumerate(ready):
                step(batch)
                tokens, attended = tokens + planned.n_tokens, attended + planned.n_tokens * planned.window
                if number % 5 == 4:
                    torch.cuda.synchronize()
                    seconds = time.perf_counter() - start
                    if number > 10:
                        speeds.append(tokens / seconds)
                        shares.append(
                            flops.count_operations(net.config, weights, tokens, attended) / seconds / peak
                        )
                    tokens, attended, start = 0, 0, time.perf_counter()
        low, middle, high = quartiles(speeds)
        print(
            f"{kind:7} {middle:9.0f} tokens/s (quartiles {low:.0f} to {high:.0f}, n = {len(speeds)}), "
            f"{100 * statistics.median(shares):.1f} % of peak"
        )


def quartiles(numbers: list[float]) -> tuple[float, float, float]:
    """First quartile, median, third quartile."""
    return tuple(np.percentile(numbers, [25, 50, 75]).tolist())  # type: ignore[return-value]


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--gpu", action="store_true", help="on a GPU, ours alone")
    parser.add_argument("--large", action="store_true", help="the large network, on a GPU")
    parser.add_argument("--compile", action="store_true", help="our side with compiled blocks")
    parser.add_argument("--batch-tokens", type=int, default=65536, help="of a step on a GPU")
    args = parser.parse_args()
    if args.gpu:
        on_gpu(args)
    else:
        on_cpu(args)
        if torch.cuda.is_available():
            on_gpu(args)


if __name__ == "__main__":
    main()
