"""Trial: forced tokens out of the loss, in `cif`.

    python dev/forced.py DATASET --tokens 1.5 --weight 0

DATASET was prepared with --language cif. Tokens that the full rules leave no choice about, given the cell's
composition, weigh so much in what is learned; prints the loss of the split `val` of the tokens that are free,
and of the forced ones, nats a crystal.
"""

from __future__ import annotations

import argparse
import math
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from crystallm.datasets import packing, shards
from crystallm.errors import InputError
from crystallm.grammar import factory
from crystallm.language import get_language
from crystallm.network.config import ModelConfig
from crystallm.network.transformer import GPT

if TYPE_CHECKING:
    import numpy.typing as npt


def free(ids: list[int]) -> npt.NDArray[np.uint16] | None:
    """1 where the rules leave a choice, else 0; None for a crystal that the rules would write anew."""
    language = get_language("cif")
    composition, _ = language.read_prompt(ids)
    start = language.prompt(composition.items())
    rules = factory.make_grammar("cif", composition.items())
    assert rules is not None  # noqa: S101 - the full ones
    found = np.zeros(len(ids), dtype=np.uint16)
    try:
        state = rules.start(start)
        for place in range(len(start), len(ids)):
            found[place] = len(state.allowed()) > 1
            if state.advance(ids[place]):
                return None
    except InputError:
        return None
    return found


def marked(split: shards.TokenSplit, most: int) -> tuple[shards.TokenSplit, shards.TokenSplit]:
    """Crystals that are walks through the rules, at most so many tokens, and whether each token is free."""
    texts, marks, n_tokens = [], [], 0
    for i in range(len(split)):
        ids = split.crystal(i)
        found = free(ids.tolist()) if len(ids) <= 1024 else None
        if found is not None:
            texts.append(ids.astype(np.uint16))
            marks.append(found)
            n_tokens += len(ids)
        if n_tokens > most:
            break
    starts = np.cumsum([0, *map(len, texts)], dtype=np.int64)
    one, two = (
        shards.TokenSplit(np.concatenate(part), starts, "cif", split.vocab_size) for part in (texts, marks)
    )
    return one, two


def main() -> None:
    """Mark, train, judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--tokens", type=float, default=1.5, help="million")
    parser.add_argument("--weight", type=float, nargs="+", default=[1.0, 0.0], help="of forced tokens")
    args = parser.parse_args()
    torch.set_num_threads(1)
    train, free_train = marked(shards.load(args.data, "train"), round(1e6 * args.tokens))
    val, free_val = marked(shards.load(args.data, "val"), 150_000)
    share = float(free_train.stream.mean())
    print(
        f"{len(train)} crystals, {len(train.stream) / 1e6:.2f} M tokens, {share:.1%} of them free", flush=True
    )

    def losses(network: GPT, batch: packing.Batch, marks: packing.Batch) -> tuple[torch.Tensor, torch.Tensor]:
        ids, targets, positions = (torch.from_numpy(a) for a in (batch.ids, batch.targets, batch.positions))
        segments = None if batch.segments is None else torch.from_numpy(batch.segments)
        with torch.autocast("cpu", torch.bfloat16):
            seen = network.features(ids, positions=positions, segments=segments).flatten(0, 1)
            taught = (targets != packing.IGNORE).flatten().nonzero().squeeze(1)
            logits = network.lm_head(seen[taught])
        loss = functional.cross_entropy(logits.float(), targets.flatten()[taught], reduction="none")
        return loss, torch.from_numpy(marks.targets).flatten()[taught].float()

    options: dict[str, Any] = {"batch_tokens": 4096, "context": 1024, "seed": 0, "epoch": 0}
    for weight in args.weight:
        torch.manual_seed(0)
        network = GPT(
            ModelConfig(language="cif", vocab_size=train.vocab_size, n_layer=4, n_head=8, n_embd=256)
        ).train()
        optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, betas=(0.9, 0.99), fused=True)
        start, tokens = time.process_time(), 0
        for update, (batch, marks) in enumerate(
            zip(packing.batches(train, **options), packing.batches(free_train, **options), strict=True)
        ):
            done = tokens / len(train.stream)
            for group in optimizer.param_groups:
                group["lr"] = (
                    2e-3 * min(1, (update + 1) / 50) * (0.02 + 0.49 * (1 + math.cos(math.pi * done)))
                )
            loss, is_free = losses(network, batch, marks)
            weights = is_free + weight * (1 - is_free)
            ((loss * weights).sum() / weights.sum()).backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            tokens += batch.n_tokens
        sums = torch.zeros(2)
        with torch.no_grad():
            held = options | {"shuffle": False}
            for batch, marks in zip(
                packing.batches(val, **held), packing.batches(free_val, **held), strict=True
            ):
                loss, is_free = losses(network.eval(), batch, marks)
                sums += torch.stack([(loss * is_free).sum(), (loss * (1 - is_free)).sum()])
        free_loss, forced_loss = (sums / len(val)).tolist()
        print(
            f"weight {weight}: free {free_loss:.2f}, forced {forced_loss:.2f} nats a crystal, "
            f"{tokens / (time.process_time() - start):.0f} tok/s",
            flush=True,
        )


if __name__ == "__main__":
    main()
