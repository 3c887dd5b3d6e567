"""Trials: how crystals are told and how networks learn them, at equal compute.

    python dev/trials.py DATASET --tokens 2 --told sites
    python dev/trials.py DATASET --tokens 2 --form llama --optimizer muon

DATASET was prepared in `orbits`. Each trial trains on one thread for so many million tokens, cosine and all,
and prints the loss of the split `val`, nats a crystal, comparable between all tellings that lose nothing, and
the tokens a second of CPU time.

Tellings: `now` the language as it is; `sites` orbit tokens of multiplicity and site symmetry in place of the
letter; `digits` coordinates digit by digit; `coarse` twentieths, then fiftieths; `whole` a thousandth
as one token; `hundredths` no third digit, which loses some.
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

from crystallm.crystallography import space_groups
from crystallm.datasets import packing, shards
from crystallm.network.config import ModelConfig
from crystallm.network.transformer import GPT
from crystallm.orbits import description, language

if TYPE_CHECKING:
    from collections.abc import Iterator

# --- tellings ---


@cache
def site_label(number: int, label: str) -> str:
    """Multiplicity, kinds of rotations that keep the site, and a number among equals: `4|2+-2|0`."""
    group = space_groups.get(number)
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


def tell(crystal: description.Description, telling: str) -> Iterator[Told]:
    """Tokens of a crystal."""
    names = language.text(language.to_ids(crystal)).split()
    place = 1 + sum(1 + (count >= 100) + 1 for _, count in crystal.composition)
    yield from ((name, "comp") for name in names[:place])
    yield names[place], "group"
    for orbit in crystal.orbits:
        yield orbit.element, "marker"  # follows from what stands before it
        label = site_label(crystal.space_group, orbit.label) if telling == "sites" else orbit.label
        yield label, "orbits"
    place += 1 + 2 * len(crystal.orbits)
    for name in names[place : place + 2 * len(crystal.cell)]:
        yield name, "cell fine" if name[0] == "." else "cell"
    for value in (value for orbit in crystal.orbits for value in orbit.coordinates):
        if telling == "digits":
            yield f"a{value // 100}", "coord"
            yield f"b{value // 10 % 10}", "coord"
            yield f"c{value % 10}", "coord fine"
        elif telling == "coarse":
            yield f"a{value // 50}", "coord"
            yield f"b{value % 50}", "coord"
        elif telling == "whole":
            yield f"a{value}", "coord"
        else:
            yield f"0.{value // 10:02d}", "coord"
            if telling != "hundredths":
                yield f"{value % 10}'", "coord fine"
    yield "<end>", "end"


class Telling:
    """A split in another telling, with what each token tells."""

    def __init__(self, split: shards.TokenSplit, telling: str, index: dict[str, int]) -> None:
        streams, kinds = [], []
        for i in range(len(split)):
            crystal = language.from_ids(split.crystal(i).tolist())
            pairs = list(tell(crystal, telling))
            streams.append([index.setdefault(token, len(index)) for token, _ in pairs])
            kinds += [KINDS.index(kind) for _, kind in pairs]
        starts = np.cumsum([0, *map(len, streams)], dtype=np.int64)
        self.split = shards.TokenSplit(
            np.concatenate(streams).astype(np.uint16), starts, "orbits", len(index)
        )
        self.kinds = shards.TokenSplit(np.array(kinds, dtype=np.uint16), starts, "orbits", len(KINDS))


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
        taught = (targets != packing.IGNORE).flatten().nonzero().squeeze(1)
        logits = network.lm_head(features.flatten(0, 1)[taught])
    loss = functional.cross_entropy(logits.float(), targets.flatten()[taught], reduction="none")
    return loss, torch.from_numpy(kinds.targets).flatten()[taught]


def both(told: Telling, **options: Any) -> Iterator[tuple[Any, Any]]:
    """Batches of tokens, and the same of their kinds."""
    yield from zip(
        packing.batches(told.split, **options), packing.batches(told.kinds, **options), strict=True
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
    structure = sum(value for name, value in found.items() if name not in ("comp", "marker"))
    return {"all": sum(found.values()), "structure": structure, **found}


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
    parser.add_argument("--form", choices=("gpt2", "llama"), default="gpt2")
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
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    index: dict[str, int] = {}
    train, val = (Telling(shards.load(args.data, name), args.told, index) for name in ("train", "val"))
    weights = torch.tensor([LIGHT.get(kind, 1.0) if args.light else 1.0 for kind in KINDS])
    config = ModelConfig(
        language="orbits", form=args.form, vocab_size=len(index), context=1100, n_layer=args.layers,
        n_head=args.heads, n_embd=args.width, dropout=args.dropout,
    )  # fmt: skip
    network = GPT(config).train()
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
