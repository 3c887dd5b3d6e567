"""Hypothetical crystals, from which a network learns which crystals relatives make probable.

A formula is that of a crystal of a data set in which one or two elements are exchanged. The new element is
drawn with the weight exp(-d / `REACH`), where d is its distance from the old one (see `similarity`). The
crystals of a formula are the most probable ones that known crystals make of it (see `lookup`). They become
the split `train` of a data set of its own, for `crystallm train --replay-dataset`.

Units of formulas are kept in a folder beside it until the end, so that the same command goes on with a killed
run.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import shutil
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from crystallm.crystallography import elements
from crystallm.datasets import shards
from crystallm.errors import CrystallmError, InputError
from crystallm.execution.progress import Progress, no_progress
from crystallm.language import get_language
from crystallm.orbits import language
from crystallm.references.candidates import Filter, find_candidates
from crystallm.references.library import Library, reduced
from crystallm.references.load import fingerprint, load_library
from crystallm.references.lookup import likeliest
from crystallm.references.reading.units import UNIT_SIZE, facts_of_orbits, make_units, packed, unpacked
from crystallm.references.scorer import default_scorer
from crystallm.references.similarity import default_similarity
from crystallm.storage import files
from crystallm.storage.run_folder import FACTS, RunFolder

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from concurrent.futures import Executor

    from crystallm.references.options import HypotheticalOptions

REACH = 0.35
"""How far an element may be from the one that it replaces."""
PER_FORMULA, MAX_ATOMS, MAX_TOKENS = 2, 96, 150
"""Crystals of a formula, atoms of a conventional cell, and tokens of a crystal, at most."""
_TRIES = 20  # draws for each formula; some give elements twice, or a formula that is left out
_COLUMNS = {"unit": "int64", "formula": "string", "ids": "binary"}
_KNOWN = "formulas.json"


class HypotheticalReport(NamedTuple):
    """What was made.

    Attributes:
        formulas: that were drawn, each once.
        crystals: of these.
        tokens: of the crystals.
        without: formulas that no known crystal makes a crystal probable for.
    """

    formulas: int
    crystals: int
    tokens: int
    without: int


def write_hypothetical(
    dataset: Path,
    options: HypotheticalOptions,
    *,
    workers: int = 1,
    executor: Executor | None = None,
    progress: Progress = no_progress,
) -> HypotheticalReport:
    """Draw formulas, look up what known crystals make of them, and write a data set.

    Args:
        dataset: folder of a data set in the language `orbits`. Formulas are drawn from its split `train`;
            those of its other splits are left out.

    Raises:
        InputError: no such data set, one of another language, no such library, or no --out.
        CrystallmError: the folder cannot be written, or no formula has a crystal.
    """
    facts = facts_of_orbits(dataset, "hypothetical crystals are made")
    out = options.out
    if out is None:
        raise InputError("--out is missing: name a folder for the data set, such as hypothetical")
    if (out / FACTS).exists():
        raise InputError(f"{str(out)!r} holds a data set: choose another folder, or delete it")
    paths = [str(path.resolve()) for path in options.references]
    library = load_library(paths)
    parts = out.with_name(f"{out.name}.parts")
    about = {"library": fingerprint(library), "tokens": facts.get("tokens")}
    folder = RunFolder(parts, RunFolder.configuration("references hypothetical", options, **about), _COLUMNS)
    known = parts / _KNOWN
    files.write_atomically(known, json.dumps(sorted(_left_out(dataset, library, options.exclude))).encode())
    n = options.formulas
    task: dict[str, Any] = {"references": paths, "dataset": str(dataset.resolve())}
    task |= {"known": str(known.resolve()), "seed": options.seed, "least": options.least_probability}
    make_units(
        make,
        (task | {"n": min(UNIT_SIZE, n - start)} for start in range(0, n, UNIT_SIZE)),
        folder,
        rows=lambda done, found: [
            {"unit": done["number"], "formula": formula, "ids": unpacked(ids)} for formula, ids in found
        ],
        size=lambda unit: unit["n"],
        total=n,
        task="making hypothetical crystals",
        failed="hypothetical crystals cannot be made",
        workers=workers,
        executor=executor,
        progress=progress,
    )
    report = _write(out, folder)
    shutil.rmtree(parts, ignore_errors=True)
    if not report.crystals:
        raise CrystallmError(f"none of {report.formulas} formulas has a probable crystal: lower the bound")
    content = {name: facts[name] for name in ("language", "vocab_size")}
    content |= {"crystals": {"train": report.crystals}, "tokens": {"train": report.tokens}}
    files.write_atomically(out / FACTS, (json.dumps(content, indent=2) + "\n").encode())
    return report


def _left_out(dataset: Path, library: Library, exclude: Sequence[str]) -> set[str]:
    """Return the reduced formulas of which no crystal is made."""
    found = set(library.formulas_of(elements.symbols()))
    for split in ("val", "test"):
        with contextlib.suppress(InputError):  # there is none
            found |= {reduced(counts) for counts in _compositions(dataset, split)}
    for path in exclude:
        found.update(load_library([path]).formulas_of(elements.symbols()))
    return found


def _compositions(dataset: Path, split: str) -> Iterator[dict[str, int]]:
    crystals = shards.load(dataset, split)
    for i in range(len(crystals)):
        counts, _ = get_language("orbits").read_prompt(crystals.crystal(i).tolist())
        yield dict(counts)


def make(task: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return formulas with the packed tokens of a crystal, "" for none, in a worker process."""
    library = load_library(task["references"])
    starts, known = _starts(task["dataset"]), _known(task["known"])
    random = np.random.default_rng([task["seed"], task["number"]])
    drawn: set[str] = set()
    found: list[tuple[str, str]] = []
    for _ in range(_TRIES * task["n"]):
        if len(drawn) == task["n"]:
            break
        counts = exchanged(starts[random.integers(len(starts))], random)
        formula = "" if counts is None else reduced(counts)
        if counts is None or formula in known or formula in drawn:
            continue
        drawn.add(formula)
        crystals = list(probable_crystals(library, counts, task["least"]))
        found += [(formula, packed(ids)) for ids in crystals] or [(formula, "")]
    return found


def exchanged(counts: Mapping[str, int], random: np.random.Generator) -> dict[str, int] | None:
    """Exchange one or two elements of a composition; None if an element would come twice, or is unknown."""
    weights = _replacements()
    names = list(counts)
    for i in random.permutation(len(names))[: random.integers(1, 3)]:
        if names[i] not in weights:
            return None
        row = weights[names[i]]
        names[i] = list(weights)[int(np.searchsorted(row, random.random() * row[-1], "right"))]
    return dict(zip(names, counts.values(), strict=True)) if len(set(names)) == len(names) else None


def probable_crystals(library: Library, counts: Mapping[str, int], least: float) -> Iterator[list[int]]:
    """Yield the tokens of the crystals that a library makes at least so probable, best first."""
    candidates = find_candidates(library, counts, Filter(max_atoms=MAX_ATOMS))
    if not len(candidates):
        return
    probabilities = default_scorer().probabilities(candidates, known_share=0.0)
    for i, made in itertools.islice(likeliest(library, candidates, probabilities), PER_FORMULA):
        if probabilities[i] < least:
            return
        ids = language.to_ids(made)
        if len(ids) <= MAX_TOKENS:
            yield ids


@cache
def _replacements() -> dict[str, np.ndarray[Any, Any]]:
    """Return for each element the cumulative weights of all of them, in the same order."""
    similarity = default_similarity()
    numbers = [elements.get(symbol).number for symbol in similarity.points]
    weights = np.exp(-similarity.table[np.ix_(numbers, numbers)] / REACH) * ~np.eye(len(numbers), dtype=bool)
    return dict(zip(similarity.points, weights.cumsum(axis=1), strict=True))


@cache
def _starts(dataset: str) -> list[dict[str, int]]:
    """Return the compositions in which elements are exchanged."""
    return [counts for counts in _compositions(Path(dataset), "train") if len(counts) > 1]


@cache
def _known(path: str) -> frozenset[str]:
    return frozenset(json.loads(Path(path).read_text(encoding="utf-8")))


def _write(out: Path, folder: RunFolder) -> HypotheticalReport:
    """Write the split; a formula of two units counts once."""
    units: dict[str, int] = {}
    n_without = 0
    with files.saying(f"{str(out)!r} cannot be written"):
        out.mkdir(parents=True, exist_ok=True)
        with shards.SplitWriter(out, "train") as writer:
            for record in folder.stream(["unit", "formula", "ids"]):
                if units.setdefault(record["formula"], record["unit"]) != record["unit"]:
                    continue
                if record["ids"]:
                    writer.add(record["ids"])
                else:
                    n_without += 1
    return HypotheticalReport(len(units), writer.n_crystals, writer.n_tokens, n_without)
