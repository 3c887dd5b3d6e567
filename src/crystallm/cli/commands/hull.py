"""`crystallm hull`: known crystals become the entries of a hull, by one energy model and one method."""

from __future__ import annotations

import itertools
import json
import os
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from crystallm.cli.commands import stability
from crystallm.cli.console import progress
from crystallm.cli.option_groups import ConfigFile, Device, Quiet, merged
from crystallm.errors import CrystallmError, InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from crystallm.energy.relaxation import RelaxOptions
    from crystallm.sources.entry import Entry


_Key = tuple[int, str]  # number and id of a crystal


def hull(
    path: Annotated[
        str | None, Parameter(help="Folder or file of known crystals (see crystallm prepare --help).")
    ] = None,
    *,
    energy: Annotated[
        str | None, Parameter(help="chgnet, sevennet, or module:factory for any ASE calculator (chgnet).")
    ] = None,
    relax: Annotated[
        bool | None, Parameter(negative=(), help="Relax them first, as evaluate --relax does with others.")
    ] = None,
    steps: Annotated[
        int | None, Parameter(help="With --relax: steps for one crystal, at most (500).")
    ] = None,
    systems: Annotated[
        str | None,
        Parameter(help="Folder or file of crystals: of their chemical systems alone, and those below them."),
    ] = None,
    out: Annotated[Path | None, Parameter(help="File for the entries, .jsonl, which --hull reads.")] = None,
    device: Device = None,
    workers: Annotated[int | None, Parameter(help="Processes (one a core; on a GPU, one).")] = None,
    config: ConfigFile = None,
    quiet: Quiet = False,
) -> None:
    """Write the energies of known crystals, from which evaluate, generate, search and relax count theirs.

    crystallm hull train.csv.gz --energy chgnet --systems out/new --out hull.jsonl

    An entry for each element is made too, from its reference crystal. A killed run started again goes on.
    Crystals that are evaluated with --relax ask for entries with --relax.
    """
    flags = {
        "path": path, "energy": energy, "relax": relax, "steps": steps, "systems": systems, "out": out,
        "device": device, "workers": workers,
    }  # fmt: skip
    options = merged(config, flags)
    for name, what in (("path", "no crystals: name a folder or file"), ("out", "no place for the entries")):
        if options.get(name) is None:
            raise InputError(f"{what}: see crystallm hull --help")
    if options.get("steps") is not None and not options.get("relax"):
        raise InputError("--steps without --relax: give --relax, too (see --help)")
    target = Path(str(options["out"]))
    if target.suffix.lower() != ".jsonl":
        raise InputError(f"out = {str(target)!r}: name a file that ends in .jsonl")
    if not target.absolute().parent.is_dir():
        raise InputError(f"no folder {str(target.parent)!r} for {target.name!r}: make it first")
    model = str(options.get("energy", "chgnet"))
    how = stability.relaxing(options) if options.get("relax") else None
    place, n_workers = stability.placed(model, options, int(options.get("workers") or os.cpu_count() or 1))
    wanted = None if options.get("systems") is None else _systems(str(options["systems"]))
    rows = _kept(target, {"model": model, "relaxed": how is not None})
    shown = not quiet
    with progress("weighing crystals", None, shown=shown) as advance:
        lost = _weighed(
            str(options["path"]), wanted, target, rows, advance, model=model, how=how, device=place,
            n_workers=n_workers,
        )  # fmt: skip
    if not quiet:
        sys.stdout.write(f"{len(rows):,} entries in {target}, {sum(lost.values()):,} crystals without one\n")
        for reason, n in lost.most_common(10):
            sys.stdout.write(f"  {n:,}  {reason}\n")


def _systems(path: str) -> list[frozenset[str]]:
    """The chemical systems of a collection.

    Raises:
        InputError: it has none.
    """
    from crystallm.sources import collection

    found = {stability.symbols(entry) for entry in collection.read_cifs(path)} - {frozenset[str]()}
    if not found:
        raise InputError(f"systems = {path!r}: no crystal there says its formula")
    return list(found)


def _kept(target: Path, method: Mapping[str, Any]) -> dict[_Key, dict[str, Any]]:
    """The entries that are there already; a torn last line is none.

    Raises:
        InputError: the file holds something else.
        CrystallmError: it cannot be read.
    """
    rows: dict[_Key, dict[str, Any]] = {}
    if not target.exists():
        return rows
    try:
        lines = target.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CrystallmError(f"{str(target)!r} cannot be read: {error}") from None
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            key = (int(row["number"]), str(row["id"]))
            was = {name: row[name] for name in method}
        except (ValueError, KeyError, TypeError):
            if number == len(lines):
                break
            raise InputError(
                f"{str(target)!r}, line {number}: not of crystallm hull; choose another --out"
            ) from None
        for name, now in method.items():
            if was[name] != now:
                said = f"{str(target)!r} holds other entries ({name} was {was[name]}, now {now})"
                raise InputError(f"{said}: choose another --out, or delete it")
        rows[key] = row
    return rows


def _weighed(
    path: str,
    wanted: Sequence[frozenset[str]] | None,
    target: Path,
    rows: dict[_Key, dict[str, Any]],
    advance: Callable[[int], None],
    *,
    model: str,
    how: RelaxOptions | None,
    device: str,
    n_workers: int,
) -> Counter[str]:
    """Put what is missing into the rows, writing them after each block; why crystals have no entry."""
    from crystallm.execution import mapping
    from crystallm.sources import collection
    from crystallm.thermodynamics import collection_energies

    lost: Counter[str] = Counter()
    same = {"model": model, "relaxed": how is not None}
    elements: set[str] = set().union(*(wanted or ()))
    done = 0

    def chosen() -> Iterator[tuple[int, Entry]]:
        for number, entry in enumerate(collection.read_cifs(path)):
            if entry.text is None:
                if wanted is None:
                    lost[f"not read: {entry.problem}"] += 1
                continue
            found = stability.symbols(entry)
            if wanted is None:
                elements.update(found)
            elif not found or not any(found <= system for system in wanted):
                continue
            if (number, entry.id) not in rows:
                yield number, entry

    crystals = chosen()
    if rows:
        _write(target, rows)  # without the torn line that a kill may have left
    with mapping.kept(n_workers, end=True):
        while block := list(itertools.islice(crystals, collection_energies.BLOCK)):
            texts = [str(entry.text) for _, entry in block]
            found = collection_energies.collection_energies(
                texts, model, options=how, device=device, n_workers=n_workers
            )
            new: dict[_Key, dict[str, Any]] = {}
            for (number, entry), one in zip(block, found, strict=True):
                if one.structure is None or one.energy is None:
                    lost[one.reason] += 1
                    continue
                row = _row(number, entry.id, one.structure.composition.alphabetical_formula, one.energy)
                new[number, entry.id] = {**row, **same}
            rows |= new
            if new:
                with target.open("a", encoding="utf-8") as file:
                    file.write(_lines(new))
            done += len(block)
            advance(done)
    for symbol in _add_elements(elements, rows, same, model, device):
        lost[f"the element {symbol}: its reference crystal has no energy"] += 1
    if not rows:
        raise CrystallmError(f"{path!r} gives no entry: {'; '.join(lost) or 'none is of these systems'}")
    _write(target, rows)
    return lost


def _add_elements(
    elements: set[str], rows: dict[_Key, dict[str, Any]], same: Mapping[str, Any], model: str, device: str
) -> list[str]:
    """Entries of the elements' reference crystals, which are always relaxed; the elements that have none."""
    from crystallm.crystallography.elements import symbols
    from crystallm.thermodynamics.formation import element_energies

    found = element_energies(elements & set(symbols()), model, device=device)
    for symbol, energy in found.items():
        rows[-1, symbol] = {**_row(-1, symbol, symbol, energy), **same}
    return sorted(elements - found.keys())


def _row(number: int, name: str, formula: str, energy: float) -> dict[str, Any]:
    return {
        "number": number,
        "id": name,
        "composition": formula.replace(" ", ""),
        "energy_per_atom": energy,
    }


def _write(target: Path, rows: Mapping[_Key, Mapping[str, Any]]) -> None:
    """Write all entries, in the order of the collection."""
    from crystallm.storage import files

    files.write_atomically(target, _lines(rows).encode())


def _lines(rows: Mapping[_Key, Mapping[str, Any]]) -> str:
    return "".join(f"{json.dumps(rows[key], ensure_ascii=False)}\n" for key in sorted(rows))
