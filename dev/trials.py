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
import re
import time
from collections import Counter
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from crystallm import dataset, orbits, spacegroups
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


Told = tuple[str, str]
"""A token and what it tells: comp, group, orbits, cell, cell fine, marker, coord, coord fine, end."""


def tell(crystal: orbits.Description, telling: str, volumes: dict[str, float]) -> Iterator[Told]:
    """Tokens of a crystal."""
    group = spacegroups.get(crystal.space_group)
    yield "<crystal>", "comp"
    for symbol, count in crystal.composition:
        yield symbol, "comp"
        yield f"n{count}", "comp"
    yield f"({crystal.space_group})", "group"
    for orbit in crystal.orbits:
        yield orbit.element, "orbits"
        yield site_label(group.number, orbit.label) if telling == "sites" else orbit.label, "orbits"
    yield from tell_scale(crystal, volumes) if telling.startswith("scale") else tell_cell(crystal)
    for orbit in crystal.orbits:
        if orbit.coordinates and telling not in ("bare", "scale-bare"):
            yield orbit.element, "marker"
            yield site_label(group.number, orbit.label) if telling == "sites" else orbit.label, "marker"
        for value in orbit.coordinates:
            if telling == "digits":
                yield f"a{value // 100}", "coord"
                yield f"b{value // 10 % 10}", "coord"
                yield f"c{value % 10}", "coord fine"
            elif telling == "coarse":
                yield f"a{value // 50}", "coord"
                yield f"b{value % 50}", "coord fine"
            elif telling == "whole":
                yield f"a{value}", "coord"
            else:
                yield f"0.{value // 10:02d}", "coord"
                if telling != "hundredths":
                    yield f"{value % 10}'", "coord fine"
    yield "<end>", "end"


def tell_cell(crystal: orbits.Description) -> Iterator[Told]:
    """Lengths and angles, whole and hundredths."""
    for name, value in zip(spacegroups.get(crystal.space_group).free_cell, crystal.cell, strict=True):
        yield f"{value // 100}{'Å' if len(name) == 1 else '°'}", "cell"
        yield f".{value % 100:02d}", "cell fine"


def tell_scale(crystal: orbits.Description, volumes: dict[str, float]) -> Iterator[Told]:
    """Volume over the sum of atomic volumes, then ratios of the other lengths to a, in per cent; angles."""
    group = spacegroups.get(crystal.space_group)
    cell = dict(zip(group.free_cell, crystal.cell, strict=True))
    whole = group.complete_cell({name: value / 100 for name, value in cell.items()})
    expected = sum(count * volumes[symbol] for symbol, count in crystal.composition)
    yield from per_cent("v", volume_of(whole) / expected)
    for name, value in cell.items():
        if name in ("b", "c"):
            yield from per_cent(name, value / cell["a"])
        elif len(name) > 1:
            yield f"{value // 100}°", "cell"
            yield f".{value % 100:02d}", "cell fine"


def per_cent(name: str, ratio: float) -> Iterator[Told]:
    """A ratio in steps of 1 %, tens first."""
    steps = round(100 * math.log(ratio))
    yield f"{name}{steps // 10}", "cell"
    yield f"{name}.{steps % 10}", "cell fine"


def volume_of(cell: Any) -> float:
    """Of a cell (Å, degrees), Å^3."""
    cosines = np.cos(np.radians(cell[3:]))
    return float(np.prod(cell[:3]) * math.sqrt(1 - (cosines**2).sum() + 2 * cosines.prod()))


def blur(crystal: orbits.Description) -> float:
    """How much larger (log) than steps of 0.01 Å the steps of `tell_scale` are, in the space of lengths."""
    lengths = [
        v / 100
        for n, v in zip(spacegroups.get(crystal.space_group).free_cell, crystal.cell, strict=True)
        if len(n) == 1
    ]
    # Of n free lengths: d(ln V) d(ln r_2) ... d(ln r_n) = 3 d(ln l_1) ... d(ln l_n).
    return sum(map(math.log, lengths)) - math.log(3)


def atomic_volumes(split: dataset.Split) -> dict[str, float]:
    """Å^3 of an atom of each element, such that their sums come near the volumes of the cells."""
    from scipy.optimize import lsq_linear

    symbols = orbits.elements.symbols()
    rows, target = [], []
    for i in range(0, len(split), 3):
        crystal = orbits.from_ids(split.crystal(i).tolist())
        group = spacegroups.get(crystal.space_group)
        free = {n: v / 100 for n, v in zip(group.free_cell, crystal.cell, strict=True)}
        volume = volume_of(group.complete_cell(free))
        rows.append([dict(crystal.composition).get(symbol, 0) / volume for symbol in symbols])
        target.append(1.0)
    found = lsq_linear(np.array(rows), np.array(target), bounds=(4.0, 80.0)).x
    return dict(zip(symbols, found.tolist(), strict=True))


class Telling:
    """A split in another telling, with what each token tells."""

    def __init__(
        self, split: dataset.Split, telling: str, index: dict[str, int], volumes: dict[str, float]
    ) -> None:
        streams, kinds = [], []
        self.blur = 0.0
        for i in range(len(split)):
            crystal = orbits.from_ids(split.crystal(i).tolist())
            pairs = list(tell(crystal, telling, volumes))
            streams.append([index.setdefault(token, len(index)) for token, _ in pairs])
            kinds += [KINDS.index(kind) for _, kind in pairs]
            self.blur += blur(crystal) / len(split) if telling.startswith("scale") else 0.0
        starts = np.cumsum([0, *map(len, streams)], dtype=np.int64)
        self.split = dataset.Split(np.concatenate(streams).astype(np.uint16), starts, "orbits", len(index))
        self.kinds = dataset.Split(np.array(kinds, dtype=np.uint16), starts, "orbits", len(KINDS))


KINDS = ("comp", "group", "orbits", "cell", "cell fine", "marker", "coord", "coord fine", "end")
LIGHT = {"comp": 0.2, "cell fine": 0.2, "coord fine": 0.2, "marker": 0.2}
"""Weights of losses of what is noise, forced or given, with --light."""


def losses_of(network: GPT, windows: Any, kinds: Any) -> tuple[Tensor, Tensor]:
    """Losses of all predicted tokens, and what each tells."""
    ids, targets, positions, segments = (
        torch.from_numpy(a) for a in (windows.ids, windows.targets, windows.positions, windows.segments)
    )
    with torch.autocast("cpu", torch.bfloat16):
        features = network.features(ids, positions=positions, segments=segments)
        taught = (targets != dataset.IGNORE).flatten().nonzero().squeeze(1)
        logits = network.lm_head(features.flatten(0, 1)[taught])
    loss = functional.cross_entropy(logits.float(), targets.flatten()[taught], reduction="none")
    return loss, torch.from_numpy(kinds.targets).flatten()[taught]


def both(told: Telling, **options: Any) -> Iterator[tuple[Any, Any]]:
    """Batches of tokens, and the same of their kinds."""
    yield from zip(
        dataset.batches(told.split, **options), dataset.batches(told.kinds, **options), strict=True
    )


@torch.no_grad()
def judged(network: GPT, told: Telling) -> dict[str, float]:
    """Nats a crystal by kind, and in all."""
    network.eval()
    sums = torch.zeros(len(KINDS), dtype=torch.float64)
    options = {"batch_tokens": 16384, "context": 1100, "seed": 0, "epoch": 0, "shuffle": False}
    for windows, kinds in both(told, **options):
        loss, kind = losses_of(network, windows, kinds)
        sums.index_add_(0, kind, loss.double())
    network.train()
    found = {name: float(value) / len(told.split) for name, value in zip(KINDS, sums, strict=True)}
    found["cell fine"] += told.blur
    structure = sum(value for name, value in found.items() if name not in ("comp", "marker"))
    return {"all": sum(found.values()), "structure": structure, **found}


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


@torch.no_grad()
def smooth_(network: GPT, index: dict[str, int], most: int = 8) -> None:
    """Give tokens of numbers first embeddings that change smoothly with the number: waves of falling weight.

    The head is tied to them, so what is learned of one number is learned of its neighbours, too.
    """
    families: dict[str, list[tuple[int, float]]] = {}
    for token, place in index.items():
        match = re.fullmatch(r"([a-z]?)(-?\d*)(\.?)(\d*)(['Å°]?)", token)
        if match is None or not (match[2] or match[4]):
            continue
        name, whole, point, rest, unit = match.groups()
        kind = "coord" if whole == "0" and len(rest) == 2 else f"{name}{point}{unit}{len(rest)}"
        families.setdefault(kind, []).append((place, float(rest or whole)))
    table = network.transformer.wte.weight
    for kind, members in families.items():
        values = torch.tensor([value for _, value in members])
        span = (
            100.0 if kind == "coord" else 2 * float(values.max() - values.min() + 1)
        )  # a turn, or half a wave
        angles = 2 * math.pi * (values - values.min())[:, None] / span * torch.arange(1, most + 1)
        waves = torch.cat((angles.cos(), angles.sin()), dim=1) / torch.arange(1, most + 1).repeat(2)
        new = waves @ torch.randn(2 * most, table.shape[1])
        table[[place for place, _ in members]] = 0.02 * new / new.std() + 0.005 * torch.randn(new.shape)


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
    parser.add_argument("--light", action="store_true", help="weigh down what is noise, forced or given")
    parser.add_argument("--smooth", action="store_true", help="numbers begin with smooth embeddings")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    index: dict[str, int] = {}
    volumes = atomic_volumes(dataset.load(args.data, "train")) if args.told.startswith("scale") else {}
    train, val = (
        Telling(dataset.load(args.data, name), args.told, index, volumes) for name in ("train", "val")
    )
    weights = torch.tensor([LIGHT.get(kind, 1.0) if args.light else 1.0 for kind in KINDS])
    config = ModelConfig(
        language="orbits", vocab_size=len(index), context=1100, n_layer=args.layers, n_head=args.heads,
        n_embd=args.width, dropout=args.dropout,
    )  # fmt: skip
    network = (GPT if args.form == "gpt" else Llama)(config).train()
    if args.smooth:
        smooth_(network, index)
    chosen = optimizers(network, args)
    average = {name: p.detach().clone() for name, p in network.named_parameters()}
    start, share, update, tokens, epoch = time.process_time(), 0.0, 0, 0, 0
    while share < 1:
        options = {"batch_tokens": args.batch_tokens, "context": 1100, "seed": args.seed, "epoch": epoch}
        for batch, kinds in both(train, **options):
            share = tokens / (1e6 * args.tokens)
            if share >= 1:
                break
            warm = min(1.0, (update + 1) / 100)
            fall = 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * share))
            for optimizer, rate in chosen:
                for group in optimizer.param_groups:
                    group["lr"] = rate * warm * fall
            loss, kind = losses_of(network, batch, kinds)
            weight = weights[kind]
            ((loss * weight).sum() / weight.sum()).backward()  # type: ignore[no-untyped-call]
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
    found = [judged(network, val)]
    if args.ema:
        network.load_state_dict(average, strict=False)
        found.append(judged(network, val))
    print({name: value for name, value in vars(args).items() if value != parser.get_default(name)})
    for losses in found:
        print("  " + ", ".join(f"{name} {value:.2f}" for name, value in losses.items()))
    print(
        f"  {tokens / 1e6:.2f} M tokens, {speed:.0f} tok/s, {update} updates, "
        f"{len(train.split.stream) / len(train.split):.1f} tokens a crystal, "
        f"{sum(p.numel() for p in network.parameters()) / 1e6:.2f} M weights",
        flush=True,
    )


if __name__ == "__main__":
    main()
