"""Fit the network that ranks candidates made of known crystals, `crystallm.references.scorer`.

python scripts/fit_scorer.py src/crystallm/references/data/library.parquet --crystals 28000 --compared 8000

Crystals of a library, but for those of HYPOTHETICAL collections, are looked up among all others. A candidate
is right if it puts the elements onto the positions of the prototype as the crystal does, at like coordinates.
Of the compared crystals it is also right if pymatgen's StructureMatcher (stol 0.5, ltol 0.3, angle_tol 10)
says so, which sees the first CHECKED candidates only. The network maximizes the probability of the right
candidates, or of the answer that none is right; in half of the cases Z is given. Of the compared crystals
2,000, or a quarter, are kept back: their figures are printed after each epoch; half of them calibrate the
probabilities at the end.
"""

from __future__ import annotations

import argparse
import itertools
import math
import multiprocessing
import random
import time
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Element, Structure
from safetensors.numpy import save_file
from torch import nn

from crystallm.crystallography import elements
from crystallm.errors import CrystallmError
from crystallm.references.candidates import (
    N_FEATURES,
    Candidates,
    Filter,
    find_candidates,
    same_arrangement,
)
from crystallm.references.library import Library
from crystallm.references.prototypes import primitive_structure
from crystallm.references.scorer import FARTHEST, WEIGHTS
from crystallm.references.similarity import SAME, default_similarity

N_RELATIVES, CHECKED, WIDTH = 160, 6, 0.1
HYPOTHETICAL = {"alexandria", "nrel_hypothetical", "oqmd", "wbm"}
"""Collections that are made by substitution, so that no question is asked about them."""
N_DIMENSIONS, N_GROUP = 24, 8


class Question(NamedTuple):
    """A crystal of a library among all others.

    Attributes:
        z: of the candidates, [n_candidates].
        own_z: of the crystal.
        right: which candidates are it, [n_candidates].
    """

    candidates: Candidates
    z: Any
    own_z: int
    right: Any


# -- questions -----------------------------------------------------------------------------------------------


@cache
def opened(path: str) -> Library:
    """Return a library, read once a process."""
    return Library.read(path)


def question(path: str, row: int, compared: bool) -> Question | None:
    """Return the question of a row; None if it has no relative."""
    library = opened(path)
    member = library.member(row)
    counts = dict(zip(member.elements, member.prototype.proportions, strict=True))
    found = find_candidates(library, counts, Filter(), without=row, n_relatives=N_RELATIVES)
    if not len(found):
        return None
    prototypes = [library.prototype(int(library.codes[other])) for other in found.rows]
    right = np.array([same_arrangement(library, row, found, i) for i in range(len(found))])
    asked = Question(found, np.array([one.z for one in prototypes]), member.prototype.z, right)
    if not compared:
        return asked
    votes = np.bincount(found.members, weights=np.exp(-found.distances / WIDTH), minlength=len(found))
    truth = structure(library, row, member.elements)
    matcher = StructureMatcher(stol=0.5, ltol=0.3, angle_tol=10)
    for i in np.argsort(-votes)[:CHECKED].tolist():
        n_atoms = math.exp(2 * found.features[i, 0])  # of the primitive cell
        if right[i] or truth is None or abs(n_atoms - len(truth)) > 0.5:
            continue
        made = structure(library, found.rows[i], found.names[i])
        right[i] = made is not None and matcher.get_rms_dist(truth, made) is not None
    return asked


def structure(library: Library, row: int, symbols: tuple[str, ...]) -> Structure | None:
    """Return the primitive cell of a row with other elements."""
    try:
        return primitive_structure(library.member(row), symbols)
    except (CrystallmError, ValueError):
        return None


def questions(path: str, n: int, n_compared: int, workers: int) -> tuple[list[Question], list[Question]]:
    """Return the questions of n crystals of a library: those that are compared, and the others."""
    order = np.random.default_rng(0).permutation(len(opened(path))).tolist()
    rows = [row for row in order if opened(path).source(row) not in HYPOTHETICAL][:n]
    tasks = [(path, row, i < n_compared) for i, row in enumerate(rows)]
    started = time.time()
    with multiprocessing.Pool(workers) as pool:
        found = pool.starmap(question, tasks, chunksize=50)
    print(f"{n} crystals, {time.time() - started:.0f} s", flush=True)
    compared = [one for one in found[:n_compared] if one is not None]
    return compared, [one for one in found[n_compared:] if one is not None]


# -- the network, as in `crystallm.references.scorer` --------------------------------------------------------


def descriptors() -> torch.Tensor:
    """Return group, row, electronegativity, radius, Mendeleev number, volume and block, [119, 10]."""
    table = np.zeros((119, 10), np.float32)
    numbers = []
    for symbol in elements.symbols():
        element, own = Element(symbol), elements.get(symbol)
        inner = 57 <= element.Z <= 71 or 89 <= element.Z <= 103
        negativity = 2.0 if math.isnan(own.electronegativity) else own.electronegativity
        table[own.number] = [
            3 if inner else element.group, element.row, negativity, own.atomic_radius or 1.5,
            element.mendeleev_no, math.log(own.volume), *(element.block == block for block in "spdf"),
        ]  # fmt: skip
        numbers.append(own.number)
    table[numbers] = (table[numbers] - table[numbers].mean(0)) / table[numbers].std(0)
    return torch.tensor(table)


def perceptron(*sizes: int, last_zero: bool = False) -> nn.Sequential:
    """Return linear layers with SiLU between them."""
    layers: list[nn.Module] = []
    for first, second in itertools.pairwise(sizes):
        layers += [nn.SiLU()] if layers else []
        layers.append(nn.Linear(first, second))
    if last_zero:
        nn.init.zeros_(layers[-1].weight)  # type: ignore[arg-type]
        nn.init.zeros_(layers[-1].bias)  # type: ignore[arg-type]
    return nn.Sequential(*layers)


class Network(nn.Module):
    """Scores of the candidates of a batch, and of none, (B, n_candidates + 1)."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        points = 0.05 * torch.randn(119, N_DIMENSIONS)
        for symbol, point in default_similarity().points.items():
            points[elements.get(symbol).number, : len(point)] = torch.tensor(point)
        self.points = nn.Parameter(points)
        table = descriptors()
        self.register_buffer("descriptors", table)
        known = table.shape[1]
        self.pair = perceptron(N_DIMENSIONS + 2 * known + 2, hidden, hidden)
        self.norm = nn.LayerNorm(hidden)
        self.pool = perceptron(hidden, hidden, 1, last_zero=True)
        self.groups = nn.Embedding(231, N_GROUP)
        nn.init.normal_(self.groups.weight, std=0.1)
        self.candidate = perceptron(N_GROUP + N_DIMENSIONS + N_FEATURES, hidden, hidden, 1, last_zero=True)
        self.none = perceptron(N_DIMENSIONS + 5, 48, 1, last_zero=True)
        self.scale = nn.Parameter(torch.tensor(1 / WIDTH))
        self.own = nn.Parameter(torch.tensor(-5.0))
        self.sharpness = nn.Parameter(torch.tensor(1.0))

    def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return the scores."""
        own, other, shares = batch["numbers"], batch["relatives"], batch["shares"]
        (n, n_relatives, n_roles), known = other.shape, self.descriptors
        columns = [
            (self.points[own][:, None] - self.points[other]).abs(),
            known[own][:, None] - known[other],
            known[own][:, None].expand(n, n_relatives, n_roles, -1),
            shares[:, None, :, None].expand(n, n_relatives, n_roles, 1),
            batch["anion"][:, None, :, None].expand(n, n_relatives, n_roles, 1),
        ]
        pairs = (self.pair(torch.cat(columns, -1)) * batch["weights"][:, None, :, None]).sum(2)
        same = (batch["distances"] < SAME).float()
        votes = -batch["distances"] * self.scale + same * self.own
        votes = votes + self.pool(torch.nn.functional.silu(self.norm(pairs)))[..., 0]
        members, mask = batch["members"].clamp(min=0), batch["mask"]
        used = (batch["members"] >= 0) & mask.gather(1, members)
        votes = votes.masked_fill(~used, -1e9)
        most = votes.max(1, keepdim=True).values.detach()
        total = torch.zeros(mask.shape).scatter_add(1, members, torch.exp(votes - most) * used)
        mean = (self.points[own] * shares[..., None]).sum(1)
        context = mean[:, None].expand(n, mask.shape[1], -1)
        described = torch.cat([self.groups(batch["groups"]), context, batch["features"]], -1)
        scores = torch.log(total + 1e-30) + most + self.candidate(described)[..., 0]
        nearest = batch["distances"].masked_fill(~used | (same > 0), FARTHEST).min(1).values
        facts = torch.stack(
            [
                nearest, used.sum(1).clamp(min=1).log() / 3, mask.sum(1).clamp(min=1).log() / 2,
                (same * used).amax(1), shares.amax(1),
            ], 1,
        )  # fmt: skip
        none = self.none(torch.cat([mean, facts], 1)) - nearest[:, None] * self.scale
        return torch.cat([scores.masked_fill(~mask, -1e9), none], 1) * self.sharpness


def stacked(asked: list[Question], z_given: list[bool]) -> dict[str, torch.Tensor]:
    """Return questions of equal numbers of roles as a batch."""
    n = len(asked)
    n_relatives = max(len(one.candidates.distances) for one in asked)
    n_candidates, n_roles = max(len(one.right) for one in asked), len(asked[0].candidates.numbers)
    batch = {
        "numbers": torch.zeros(n, n_roles, dtype=torch.long),
        "shares": torch.zeros(n, n_roles),
        "weights": torch.zeros(n, n_roles),
        "relatives": torch.zeros(n, n_relatives, n_roles, dtype=torch.long),
        "distances": torch.full((n, n_relatives), 9.0),
        "members": torch.full((n, n_relatives), -1),
        "groups": torch.zeros(n, n_candidates, dtype=torch.long),
        "features": torch.zeros(n, n_candidates, N_FEATURES),
        "mask": torch.zeros(n, n_candidates, dtype=torch.bool),
        "right": torch.zeros(n, n_candidates, dtype=torch.bool),
    }
    for i, (one, given) in enumerate(zip(asked, z_given, strict=True)):
        for name in set(batch) - {"mask", "right"}:
            values = torch.as_tensor(getattr(one.candidates, name))
            batch[name][i][tuple(map(slice, values.shape))] = values.to(batch[name].dtype)
        size = len(one.right)
        batch["mask"][i, :size] = torch.tensor(one.z == one.own_z) if given else True
        batch["right"][i, :size] = torch.tensor(one.right)
    negativity = torch.tensor(electronegativities())[batch["numbers"]]
    batch["anion"] = nn.functional.one_hot(negativity.argmax(1), n_roles).float()
    batch["right"] &= batch["mask"]
    return batch


def electronegativities() -> Any:
    """Return Pauling's electronegativities by atomic number, 0 where there is none, [119]."""
    table = np.zeros(119, np.float32)
    for symbol in elements.symbols():
        table[elements.get(symbol).number] = np.nan_to_num(elements.get(symbol).electronegativity)
    return table


# -- fitting -------------------------------------------------------------------------------------------------


def batches(asked: list[Question], size: int, *, shuffled: bool) -> list[list[Question]]:
    """Return batches of questions of equal numbers of roles and like numbers of relatives."""
    by_roles: dict[int, list[Question]] = {}
    for one in asked:
        by_roles.setdefault(len(one.candidates.numbers), []).append(one)
    result = []
    for group in by_roles.values():
        if shuffled:
            random.shuffle(group)
        for start in range(0, len(group), 20 * size):
            near = sorted(group[start : start + 20 * size], key=lambda one: len(one.candidates.distances))
            result += [near[i : i + size] for i in range(0, len(near), size)]
    if shuffled:
        random.shuffle(result)
    return result


def losses(scores: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Return minus the logarithm of the probability of what is right, none included, nats."""
    right = torch.cat([right, ~right.any(1, keepdim=True)], 1)
    return torch.logsumexp(scores, 1) - torch.logsumexp(scores.masked_fill(~right, -1e9), 1)


def figures(model: Network, asked: list[Question]) -> str:
    """Describe how often the first candidate is right, and the loss, with Z open and given."""
    text = []
    for given in (False, True):
        first, loss = [], []
        with torch.no_grad():
            for group in batches(asked, 64, shuffled=False):
                batch = stacked(group, [given] * len(group))
                scores = model(batch)
                best = scores[:, :-1].argmax(1, keepdim=True)
                first += batch["right"].gather(1, best)[:, 0].tolist()
                loss += losses(scores, batch["right"]).tolist()
        text.append(
            f"Z {'given' if given else 'open'}: {100 * np.mean(first):.1f} %, {np.mean(loss):.3f} nats"
        )
    return "; ".join(text)


def fit(asked: list[Question], kept_back: list[Question], epochs: int, hidden: int) -> Network:
    """Maximize the probability of the right candidates."""
    model = Network(hidden)
    steps = epochs * len(batches(asked, 48, shuffled=False))
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps + 1, pct_start=0.1)
    started = time.time()
    for epoch in range(epochs):
        for group in batches(asked, 48, shuffled=True)[: steps // epochs]:
            batch = stacked(group, [random.random() < 0.5 for _ in group])
            loss = losses(model(batch), batch["right"]).mean()
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
        print(f"epoch {epoch}, {time.time() - started:.0f} s: {figures(model, kept_back)}", flush=True)
    return model


def calibrate(model: Network, asked: list[Question]) -> None:
    """Fit how sharp the probabilities are, and how probable it is that no candidate is right.

    Most questions of the fit count a candidate as right only where its arrangement is the same, which is too
    strict; `asked` are compared ones.
    """
    free: list[Any] = [model.sharpness, model.none[-1].bias]
    some = [
        (stacked(group, [given] * len(group)))
        for group in batches(asked, 64, shuffled=False)
        for given in (False, True)
    ]
    optimizer = torch.optim.LBFGS(free, lr=0.5, max_iter=20)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        total = sum(losses(model(batch), batch["right"]).sum() for batch in some) / len(asked)
        total.backward()
        return total

    optimizer.step(closure)


def write(model: Network, path: Path) -> None:
    """Write the weights under the names of `crystallm.references.scorer`."""
    weights = {"electronegativities": electronegativities()}
    for name, values in model.state_dict().items():
        module, *rest = name.split(".")
        if module == "groups":
            rest = []
        if rest and rest[0].isdigit():  # layers are counted without their activations
            rest[0] = str(int(rest[0]) // 2)
        weights[".".join([module, *rest])] = np.atleast_1d(values.numpy())
    save_file({name: np.ascontiguousarray(values, np.float16) for name, values in weights.items()}, path)


def main() -> None:
    """Fit, and write the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("library")
    parser.add_argument("--crystals", type=int, default=27000)
    parser.add_argument("--compared", type=int, default=9000)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--hidden", type=int, default=96)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    options = parser.parse_args()
    compared, others = questions(options.library, options.crystals, options.compared, options.workers)
    torch.manual_seed(0)
    random.seed(0)
    n_back = min(2000, len(compared) // 4)
    kept_back, compared = compared[:n_back], compared[n_back:]
    model = fit(others + compared, kept_back, options.epochs, options.hidden)
    half = len(kept_back) // 2
    calibrate(model, kept_back[:half])
    print(f"calibrated, the other half of those kept back: {figures(model, kept_back[half:])}")
    write(model, options.out)


if __name__ == "__main__":
    main()
