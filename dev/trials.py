"""Trials: how crystals are told and how networks learn them, at equal compute.

    python dev/trials.py DATASET --tokens 2 --told bare
    python dev/trials.py DATASET --tokens 2 --form llama --optimizer muon

DATASET was prepared in `orbits`. Each trial trains on one thread for so many million tokens, cosine and all,
and prints the loss of the split `val`, nats a crystal, comparable between all tellings that lose nothing, and
the tokens a second of CPU time.

Tellings: `now` the language as it is; `bare` without element and position before each coordinate; `sites`
orbit tokens of multiplicity and site symmetry in place of the letter; `digits` coordinates digit by digit;
`coarse` twentieths, then fiftieths of these; `whole` a thousandth as one token; `hundredths` no third digit,
which loses some.
"""

from __future__ import annotations

import argparse
import math
import time
from collections import Counter
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from crystallm import dataset, orbits, spacegroups, training
from crystallm.model import GPT, ModelConfig, plain_attention

if TYPE_CHECKING:
    from collections.abc import Iterator

# --- tellings ---


@cache
def site_label(number: int, label: str) -> str:
    """Multiplicity, kinds of rotations that keep the site, and a number among equals: `4|2+-2|0`."""
    group = spacegroups.get(number)
    found: Counter[str] = Counter()
    for position in group.wyckoff:
        point = position.point([0.1237, 0.2713, 0.4231][: len(position.free)])
        moved = group.rotations @ point + group.translations - point
        keeps = np.abs(moved - np.round(moved)).max(axis=1) < 1e-6
        kinds = Counter(
            (round(float(np.linalg.det(r))), int(np.trace(r))) for r in np.asarray(group.rotations)[keeps]
        )
        name = f"{position.multiplicity}|{sorted(kinds.items())}"
        if position.label == label:
            return f"{name}|{found[name]}"
        found[name] += 1
    raise ValueError(label)


def tell(crystal: orbits.Description, telling: str) -> Iterator[str]:
    """Tokens of a crystal."""
    group = spacegroups.get(crystal.space_group)
    yield "<crystal>"
    for symbol, count in crystal.composition:
        yield symbol
        yield f"n{count}"
    yield f"({crystal.space_group})"
    for orbit in crystal.orbits:
        yield orbit.element
        yield site_label(group.number, orbit.label) if telling == "sites" else orbit.label
    for name, value in zip(group.free_cell, crystal.cell, strict=True):
        yield f"{value // 100}{'Å' if len(name) == 1 else '°'}"
        yield f".{value % 100:02d}"
    for orbit in crystal.orbits:
        if orbit.coordinates and telling != "bare":
            yield orbit.element
            yield site_label(group.number, orbit.label) if telling == "sites" else orbit.label
        for value in orbit.coordinates:
            if telling == "digits":
                yield from (f"a{value // 100}", f"b{value // 10 % 10}", f"c{value % 10}")
            elif telling == "coarse":
                yield from (f"a{value // 50}", f"b{value % 50}")
            elif telling == "whole":
                yield f"a{value}"
            else:
                yield f"0.{value // 10:02d}"
                if telling != "hundredths":
                    yield f"{value % 10}'"
    yield "<end>"


def told(split: dataset.Split, telling: str, index: dict[str, int]) -> dataset.Split:
    """The split in another telling."""
    streams = []
    for i in range(len(split)):
        crystal = orbits.from_ids(split.crystal(i).tolist())
        streams.append([index.setdefault(token, len(index)) for token in tell(crystal, telling)])
    starts = np.cumsum([0, *map(len, streams)], dtype=np.int64)
    return dataset.Split(np.concatenate(streams).astype(np.uint16), starts, "orbits", len(index))


# --- the second form of network ---


class RMSNorm(nn.Module):
    """Root mean square norm in float32."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., C) to (..., C)."""
        return functional.rms_norm(x, (x.shape[-1],), self.weight, 1e-5)


class Llama(GPT):
    """Rotary positions, RMSNorm, SwiGLU; masks and packing as in GPT."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        width, hidden = config.n_embd, 64 * round(8 * config.n_embd / 3 / 64)
        trunk: Any = self.transformer
        trunk.wpe = nn.Embedding(1, 1)
        trunk.ln_f = RMSNorm(width)
        for block in trunk.h:
            block.ln_1, block.ln_2 = RMSNorm(width), RMSNorm(width)
            block.attn = Rotary(config)
            block.mlp = SwiGLU(width, hidden)
        self._initialise()

    def features(
        self, ids: Tensor, *, positions: Any = None, segments: Any = None, cache: Any = None
    ) -> Tensor:
        """The normalised stream (B, T, C)."""
        del cache
        from crystallm.model import additive_mask, segment_mask

        mask = additive_mask(segment_mask(segments), ids.shape[1], torch.bfloat16)
        trunk: Any = self.transformer
        dim = self.config.head_dim
        rate = 10000.0 ** (-torch.arange(0, dim, 2) / dim)
        angle = positions[:, None, :, None] * rate  # (B, 1, T, D / 2)
        turn = (angle.cos().to(torch.bfloat16), angle.sin().to(torch.bfloat16))
        x = functional.dropout(trunk.wte(ids), self.config.dropout, self.training)
        for block in trunk.h:
            x = x + block.attn(block.ln_1(x), mask, turn)
            x = x + block.mlp(block.ln_2(x))
        out: Tensor = trunk.ln_f(x)
        return out


class Rotary(nn.Module):
    """Attention with rotary positions."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.n_head = config.n_head
        self.c_attn = nn.Linear(config.n_embd, 3 * config.n_embd, bias=False)
        self.c_proj = nn.Linear(config.n_embd, config.n_embd, bias=False)

    def forward(self, x: Tensor, mask: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
        """Map (B, T, C) to (B, T, C)."""
        b, t, c = x.shape
        q, k, v = self.c_attn(x).view(b, t, 3, self.n_head, c // self.n_head).permute(2, 0, 3, 1, 4)
        y = plain_attention(_turned(q, turn), _turned(k, turn), v, mask, 0.0)
        out: Tensor = self.c_proj(y.transpose(1, 2).reshape(b, t, c))
        return out


def _turned(x: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    one, two = x.chunk(2, dim=-1)
    return torch.cat((one * turn[0] - two * turn[1], two * turn[0] + one * turn[1]), dim=-1)


class SwiGLU(nn.Module):
    """Gated MLP."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.c_fc = nn.Linear(width, 2 * hidden, bias=False)
        self.c_proj = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., C) to (..., C)."""
        gate, value = self.c_fc(x).chunk(2, dim=-1)
        out: Tensor = self.c_proj(functional.silu(gate) * value)
        return out


# --- training ---


def optimizers(network: GPT, args: argparse.Namespace) -> list[tuple[torch.optim.Optimizer, float]]:
    """Each with its highest rate."""
    betas = (0.9, args.beta2)
    matrices = [p for n, p in network.named_parameters() if p.dim() == 2 and ".h." in n]
    embeddings = [p for n, p in network.named_parameters() if p.dim() == 2 and ".h." not in n]
    vectors = [p for p in network.parameters() if p.dim() < 2]
    groups = [{"params": embeddings, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    if args.optimizer == "adamw":
        groups.append({"params": matrices, "weight_decay": 0.1})
        return [(torch.optim.AdamW(groups, lr=args.rate, betas=betas, fused=True), args.rate)]
    muon = torch.optim.Muon(
        matrices, lr=args.muon_rate, weight_decay=0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw"
    )
    return [
        (torch.optim.AdamW(groups, lr=args.rate, betas=betas, fused=True), args.rate),
        (muon, args.muon_rate),
    ]


def main() -> None:
    """Run one trial."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--told", default="now")
    parser.add_argument("--form", choices=("gpt", "llama"), default="gpt")
    parser.add_argument("--optimizer", choices=("adamw", "muon"), default="adamw")
    parser.add_argument("--tokens", type=float, default=2.0, help="million")
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--batch-tokens", type=int, default=2048)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--muon-rate", type=float, default=2e-3)
    parser.add_argument("--beta2", type=float, default=0.99)
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--ema", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    index: dict[str, int] = {}
    train, val = (told(dataset.load(args.data, name), args.told, index) for name in ("train", "val"))
    config = ModelConfig(
        language="orbits", vocab_size=len(index), context=1100, n_layer=args.layers, n_head=args.heads,
        n_embd=args.width, dropout=args.dropout,
    )  # fmt: skip
    network = (GPT if args.form == "gpt" else Llama)(config).train()
    chosen = optimizers(network, args)
    average = {name: p.detach().clone() for name, p in network.named_parameters()}
    device = torch.device("cpu")
    start, share, update, tokens, epoch = time.process_time(), 0.0, 0, 0, 0
    while share < 1:
        for batch in dataset.batches(
            train, batch_tokens=args.batch_tokens, context=1100, seed=args.seed, epoch=epoch
        ):
            share = tokens / (1e6 * args.tokens)
            if share >= 1:
                break
            warm = min(1.0, (update + 1) / 100)
            fall = 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * share))
            for optimizer, rate in chosen:
                for group in optimizer.param_groups:
                    group["lr"] = rate * warm * fall
            total, n = training.summed_loss(network, batch, device, "auto")
            (total / n).backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            for optimizer, _ in chosen:
                optimizer.step()
                optimizer.zero_grad()
            if args.ema:
                with torch.no_grad():
                    for name, p in network.named_parameters():
                        average[name].lerp_(p, 1 - min(args.ema, (update + 1) / (update + 10)))
            update, tokens = update + 1, tokens + batch.n_tokens
        epoch += 1
    speed = tokens / (time.process_time() - start)
    losses = [training.validate(network, val, device)]
    if args.ema:
        network.load_state_dict(average, strict=False)
        losses.append(training.validate(network, val, device))
    said = ", ".join(f"{loss.crystal:.2f}" for loss in losses)
    print(
        f"{vars(args)}\n  {said} nats a crystal; {tokens / 1e6:.2f} M tokens, {speed:.0f} tok/s, "
        f"{update} updates, {len(train.stream) / len(train):.1f} tokens a crystal, "
        f"{sum(p.numel() for p in network.parameters()) / 1e6:.2f} M weights",
        flush=True,
    )


if __name__ == "__main__":
    main()
