"""Fit the distances of elements to a library: src/crystallm/references/data/similarity.json.

python scripts/fit_similarity.py train.parquet

Each crystal is looked up among all others of its proportions. With d its distance from a relative (see
`crystallm.references.similarity`), the probability of an arrangement of its elements on a prototype is the
share of exp(-d / width) of the relatives that stand for it among the nearest 128. Points, share power and
anion weight maximize that of the true arrangement. The width is needed for the fit alone.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pymatgen.core import Element

from crystallm.crystallography import elements
from crystallm.references.library import Library
from crystallm.references.prototypes import arranged, assignments

SYMBOLS = list(elements.symbols())
N_ROLES, N_RELATIVES, N_DIMENSIONS = 6, 128, 16
TARGET = Path(__file__).parents[1] / "src" / "crystallm" / "references" / "data" / "similarity.json"


def first_guess() -> np.ndarray[Any, Any]:
    """Return group, row, electronegativity, radius and Mendeleev number of each element, [n_elements, 5]."""
    rows = []
    for symbol in SYMBOLS:
        element, own = Element(symbol), elements.get(symbol)
        inner = 57 <= element.Z <= 71 or 89 <= element.Z <= 103
        negativity = 2.0 if math.isnan(own.electronegativity) else own.electronegativity
        radius = own.atomic_radius or 1.5
        rows.append([3 if inner else element.group, element.row, negativity, radius, element.mendeleev_no])
    values = np.array(rows, float)
    return (values - values.mean(0)) / values.std(0)


def questions(library: Library, n: int, seed: int) -> dict[str, torch.Tensor]:
    """Return crystals of the library with their nearest relatives by the first guess.

    Returns:
        `target` [n, N_ROLES] and `relative` [n, N_RELATIVES, N_ROLES], indices of elements, -1 for none;
        `share` [n, N_ROLES]; `group` [n, N_RELATIVES], number of the arrangement, -1 for no relative; `right`
        [n, N_RELATIVES], whether it is the true one.
    """
    guess = first_guess()
    table = np.linalg.norm(guess[:, None] - guess[None], axis=-1)
    index = np.full(119, -1)
    index[[elements.get(symbol).number for symbol in SYMBOLS]] = np.arange(len(SYMBOLS))
    kept: dict[str, list[Any]] = {name: [] for name in ("target", "relative", "share", "group", "right")}
    for row in np.random.default_rng(seed).permutation(len(library))[:n].tolist():
        member = library.member(row)
        proportions = member.prototype.proportions
        start, end = library.range_of(proportions)
        if len(proportions) > N_ROLES or end - start < 2:
            continue
        known = index[library.numbers_of(proportions)]  # [n_crystals, n_roles]
        target = known[row - start]
        orders = np.array(list(assignments(proportions)))
        shares = np.sqrt(np.array(proportions) / sum(proportions))
        distances = np.array([(table[target[o][None], known] * shares).sum(1) for o in orders])
        distances[:, row - start] = np.inf
        nearest = np.argsort(distances, axis=None, kind="stable")[:N_RELATIVES]
        nearest = nearest[np.isfinite(distances.ravel()[nearest])]
        relative = np.full((N_RELATIVES, N_ROLES), -1)
        names: list[object] = []
        for i, (o, crystal) in enumerate(zip(*np.unravel_index(nearest, distances.shape), strict=True)):
            relative[i, orders[o]] = known[crystal]
            prototype = library.prototype(int(library.codes[start + crystal]))
            order = tuple(orders[o].tolist())
            names.append((prototype.space_group, arranged(prototype.space_group, prototype.positions, order)))
        own = (
            member.prototype.space_group,
            arranged(member.prototype.space_group, member.prototype.positions, tuple(range(len(target)))),
        )
        numbers = {name: i for i, name in enumerate(dict.fromkeys(names))}
        missing = N_RELATIVES - len(names)
        kept["group"].append([numbers[name] for name in names] + [-1] * missing)
        kept["right"].append([name == own for name in names] + [False] * missing)
        kept["relative"].append(relative)
        kept["target"].append(np.pad(target, (0, N_ROLES - len(target)), constant_values=-1))
        kept["share"].append(np.pad(np.array(proportions) / sum(proportions), (0, N_ROLES - len(target))))
    return {name: torch.tensor(np.array(values)) for name, values in kept.items()}


class Distances(torch.nn.Module):
    """Distances of crystals from their relatives, (B, N_RELATIVES)."""

    def __init__(self) -> None:
        super().__init__()
        points = 0.1 * torch.randn(len(SYMBOLS), N_DIMENSIONS)
        points[:, :5] = torch.tensor(first_guess())
        self.points = torch.nn.Parameter(points)
        self.power, self.anion = torch.nn.Parameter(torch.tensor(0.5)), torch.nn.Parameter(torch.tensor(0.0))
        self.width = torch.nn.Parameter(torch.tensor(-1.5))  # its logarithm
        self.own = torch.nn.Parameter(torch.tensor(0.0))
        negativity = [elements.get(symbol).electronegativity for symbol in SYMBOLS]
        self.negativity = torch.tensor(negativity).nan_to_num(0.0)

    def forward(self, asked: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return -d / width of each relative."""
        present = asked["target"] >= 0
        target, relative = asked["target"].clamp(min=0), asked["relative"].clamp(min=0)
        difference = self.points[target][:, None] - self.points[relative]
        distances = difference.square().sum(-1).add(1e-6).sqrt()
        negativity = self.negativity[target].masked_fill(~present, -1.0)
        anion = torch.nn.functional.one_hot(negativity.argmax(1), N_ROLES)
        weights = (
            asked["share"].float().clamp(min=1e-6) ** self.power * torch.exp(self.anion * anion) * present
        )
        weights = weights / weights.sum(1, keepdim=True)
        same = (asked["relative"].sort(2).values == asked["target"].sort(1).values[:, None]).all(-1)
        return -(distances * weights[:, None]).sum(-1) / self.width.exp() + self.own * same


def fit(asked: dict[str, torch.Tensor], epochs: int) -> Distances:
    """Maximize the probability of the true arrangements."""
    model = Distances()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=1e-3)
    use = asked["right"].any(1).nonzero()[:, 0]
    steps = epochs * math.ceil(len(use) / 64)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for epoch in range(epochs):
        total = 0.0
        for rows in use[torch.randperm(len(use))].split(64):
            batch = {name: values[rows] for name, values in asked.items()}
            scores = model(batch).masked_fill(batch["group"] < 0, -1e9)
            right = scores.masked_fill(~batch["right"], -1e9)
            loss = (torch.logsumexp(scores, 1) - torch.logsumexp(right, 1)).mean()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            total += loss.item() * len(rows)
        print(f"epoch {epoch}: {total / len(use):.3f} nats", flush=True)
    return model


def main() -> None:
    """Fit, and write the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("library", type=Path)
    parser.add_argument("--crystals", type=int, default=5000)
    parser.add_argument("--epochs", type=int, default=8)
    options = parser.parse_args()
    torch.manual_seed(0)
    model = fit(questions(Library.read(options.library), options.crystals, 0), options.epochs)
    points = {s: [round(x, 3) for x in p] for s, p in zip(SYMBOLS, model.points.tolist(), strict=True)}
    content = {
        "points": points,
        "share_power": round(float(model.power), 3),
        "anion_weight": round(float(model.anion), 3),
    }
    TARGET.write_text(json.dumps(content) + "\n", encoding="ascii")


if __name__ == "__main__":
    main()
