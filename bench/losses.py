"""What a network of the language `orbits` does not know yet: its loss by part of the text, and volumes.

    python bench/losses.py DATASET --model default mp_20 --split val

DATASET was made by `crystallm prepare`. Prints for each model the loss in nats a crystal, in all and for each
part, and how far its guess of the volume lies from the crystal's, in per cent: the median of what it says of
the first token of the volume, where composition, space group and orbits are known (median, 90 %, mean).
"""

from __future__ import annotations

import argparse
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional

from crystallm.datasets import shards
from crystallm.models import load
from crystallm.orbits.description import factor_of
from crystallm.orbits.language import OrbitsLanguage
from crystallm.orbits.vocabulary import families

if TYPE_CHECKING:
    from collections.abc import Iterator

    from crystallm.network.transformer import GPT

BATCH_TOKENS = 8192


def batches(split: shards.TokenSplit, context: int) -> Iterator[list[list[int]]]:
    """Crystals of about the same length, shortest first."""
    order = [i for i in np.argsort(split.lengths, kind="stable") if 0 < split.lengths[i] <= context]
    rows: list[list[int]] = []
    for i in order:
        if (len(rows) + 1) * split.lengths[i] > BATCH_TOKENS and rows:
            yield rows
            rows = []
        rows.append(split.crystal(int(i)).tolist())
    yield rows


@torch.no_grad()
def measure(network: GPT, split: shards.TokenSplit) -> tuple[Counter[str], list[float]]:
    """Sum the losses by part of the text (`n`: crystals), and list the relative errors of volumes."""
    sums: Counter[str] = Counter()
    errors: list[float] = []
    family = families()
    tens = slice(family.volume, family.ratio_b)
    for rows in batches(split, network.config.context):
        width = max(map(len, rows))
        ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
        logits = network(ids[:, :-1]).float()  # (B, T - 1, V)
        losses = functional.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none")  # (B, T - 1)
        for row, text in enumerate(rows):
            roles = OrbitsLanguage().token_roles(text)
            for t, token in enumerate(text[1:]):
                last = family.rest <= token < family.coarse or token >= family.fine
                sums[roles[t + 1] + (", last digits" if last else "")] += float(losses[row, t])
                if tens.start <= token < tens.stop:
                    said = logits[row, t, tens].softmax(0).cumsum(0)
                    guess = 10 * int((said < 0.5).sum()) + 4.5
                    known = 10 * (token - tens.start) + text[t + 2] - family.rest
                    errors.append(abs(factor_of(guess - known) - 1))
            sums["n"] += 1
    return sums, errors


def main() -> None:
    """Read, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("--model", nargs="+", default=["default"])
    parser.add_argument("--split", default="val")
    args = parser.parse_args()
    torch.set_num_threads(1)
    split = shards.load(args.dataset, args.split)
    for name in args.model:
        sums, errors = measure(load.load_model(name, device="cpu").network, split)
        n = sums.pop("n")
        parts = ", ".join(f"{part} {value / n:.2f}" for part, value in sums.items())
        print(f"{name}: {n} crystals, {sum(sums.values()) / n:.2f} nats a crystal: {parts}")
        median, most = (100 * np.quantile(errors, q) for q in (0.5, 0.9))
        print(f"  error of the volume: {median:.2f} / {most:.1f} / {100 * np.mean(errors):.2f} %")


if __name__ == "__main__":
    main()
