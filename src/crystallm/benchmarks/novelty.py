"""How many generated crystals are valid, unique and novel; with energies, how many are stable, too.

Two crystals are equal if `StructureMatcher(ltol=0.2, stol=0.3, angle_tol=5)` fits their primitive cells,
their volumes scaled to each other. Of N generated crystals, each one

- is valid if the checks of `crystallm.validity` pass, or as the caller says;
- is unique if it is the first of its equals. Valid crystals come before all others, each in the order given;
  a crystal is compared with the first ones of earlier equals only;
- is novel if it equals no crystal of the known set;
- is stable if its energy above the hull of known phases is e <= 0 eV/atom, metastable if e <= 0.1 eV/atom.

Rates are over all N, and again over the valid ones alone: valid, unique, novel, VUN (all three), stable,
metastable, S.U.N. (stable, unique and novel), and the same of the metastable ones. What could not be read or
compared in time is neither unique nor novel: no rate profits from a failure. It is counted as undecided.

The paper compares within equal composition of the conventional cell. That asks for a symmetry search of every
known crystal, and parts a crystal from its own slight distortion, whose conventional cell may be another one.
Here crystals are filed under their reduced formula: equal ones always share it, for the matcher maps atoms
onto like atoms, one to one, so that no match is missed, and what the paper finds equal is equal here. Known
crystals are filed under the `_chemical_formula_sum` that they print, and are read only if a generated one has
the same; the others cost a search in their text. A known crystal with shared sites equals no ordered one.

Refuses to know where crystals and energies come from.
"""

from __future__ import annotations

import json
import math
import re
import warnings
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

from crystallm import matching
from crystallm import workers as pool
from crystallm.errors import CrystallmError, InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Iterator, Mapping
    from concurrent.futures import Executor
    from pathlib import Path

    from pymatgen.core import Structure
    from pymatgen.core.structure_matcher import StructureMatcher

    Sample = Structure | str | None
    OnDone = Callable[[str, int, int], None]

LTOL, STOL, ANGLE_TOL = 0.2, 0.3, 5.0
"""Shares of a length and of (V / n_atoms)^(1/3), degrees."""
STABLE, METASTABLE = 0.0, 0.1
"""eV/atom above the hull."""
MAX_STRETCH = 1000.0
"""L^3 / V of a reduced cell beyond which a crystal is not compared; see `matching.stretch`."""
CRYSTALS, KNOWN = 8, 32
"""Generated and known crystals of one task."""
FOLDED = 64
"""Crystals of one formula that are told apart in one task; fewer after one was lost."""

_SUM = re.compile(
    r"""^_chemical_formula_sum[ \t]+(?:'([^'\n]*)'|"([^"\n]*)"|([^\s'"][^\n]*))""", re.MULTILINE
)
_TERM = re.compile(r"([A-Z][a-z]?)(\d*\.?\d*)")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found of one generated crystal.

    Attributes:
        valid, unique, novel: see the module.
        repeats: index of the crystal that it equals; None for a unique one, or one that was not compared.
        known: id of the known crystal that it equals; None for none.
        e_above_hull: eV/atom; None where it is not known.
        reason: why it could not be compared, or not with all; "" if it was.
    """

    valid: bool
    unique: bool
    novel: bool
    repeats: int | None = None
    known: str | None = None
    e_above_hull: float | None = None
    reason: str = ""

    @property
    def vun(self) -> bool:
        """Valid, unique and novel."""
        return self.valid and self.unique and self.novel

    @property
    def stable(self) -> bool:
        """Whether its energy is known and on the hull or below."""
        return self.e_above_hull is not None and self.e_above_hull <= STABLE

    @property
    def metastable(self) -> bool:
        """Whether its energy is known and at most 0.1 eV/atom above the hull; stable ones are, too."""
        return self.e_above_hull is not None and self.e_above_hull <= METASTABLE


@dataclass(frozen=True, slots=True)
class Rates:
    """Shares of n crystals, 0 to 1; NaN of no crystals, and of what asks for energies where none were given.

    vun: valid, unique and novel; sun, msun: stable or metastable, and unique and novel; others: the module.
    """

    n: int
    valid: float
    unique: float
    novel: float
    vun: float
    stable: float
    metastable: float
    sun: float
    msun: float


@dataclass(frozen=True, slots=True)
class NoveltyResult:
    """Verdicts on generated crystals, and what they add up to.

    Attributes:
        crystals: one verdict a crystal, in their order.
        overall: rates over all of them.
        among_valid: rates over the valid ones.
        n_known: known crystals that were streamed.
        n_compared: those of them that share a formula with a generated one.
        n_unreadable: those without a readable formula, or of a generated one and not to be read or compared.
        n_undecided: generated crystals that could not be compared, or not with all.
    """

    crystals: tuple[Verdict, ...]
    overall: Rates
    among_valid: Rates
    n_known: int
    n_compared: int
    n_unreadable: int
    n_undecided: int


@dataclass(slots=True)
class KnownSet:
    """Known crystals by formula: those alone whose formula is wanted, their texts packed."""

    n_rows: int = 0
    """Known crystals that were streamed."""
    n_unreadable: int = 0
    """Those whose formula could not be found."""
    rows: dict[str, list[tuple[str, bytes]]] = field(default_factory=dict)
    """For each formula, ids and packed texts in their order."""

    def text(self, formula: str, number: int) -> str:
        """The CIF of a row."""
        return zlib.decompress(self.rows[formula][number][1]).decode()


def read_known(paths: Iterable[str | Path]) -> Iterator[tuple[str, str]]:
    """Ids and CIFs of collections, one after the other; "" for what is no crystal.

    Raises:
        InputError: as `sources.read`.
    """
    from crystallm import sources

    for path in paths:
        for entry in sources.read_cifs(path):
            yield entry.id, entry.text or ""


def index(
    known: Iterable[tuple[str, str]], wanted: Container[str], *, on_row: Callable[[int], None] | None = None
) -> KnownSet:
    """File known crystals under their formulas, in one pass; what is not wanted is forgotten at once.

    Args:
        known: ids and CIFs.
        wanted: formulas as `formula_of` and `formula_in` give them.
        on_row: called with the number of rows so far, every thousand.
    """
    found = KnownSet()
    for identifier, text in known:
        found.n_rows += 1
        formula = formula_in(text)
        if formula is None:
            found.n_unreadable += 1
        elif formula in wanted:
            # Level 1: a quarter of the size for 20 microseconds.
            found.rows.setdefault(formula, []).append((identifier, zlib.compress(text.encode(), 1)))
        if on_row is not None and not found.n_rows % 1000:
            on_row(found.n_rows)
    return found


def formula_of(counts: Mapping[str, float]) -> str:
    """The reduced formula of element counts, `Cl1Na1` of Na4Cl4; fractions stay as they are."""
    if all(count == round(count) for count in counts.values()):
        divisor = math.gcd(*(round(count) for count in counts.values())) or 1
        counts = {symbol: round(count) // divisor for symbol, count in counts.items()}
    return "".join(f"{symbol}{counts[symbol]:g}" for symbol in sorted(counts) if counts[symbol])


def formula_in(text: str) -> str | None:
    """The reduced formula of a CIF by its printed sum, else of its structure; None if it has none."""
    match = _SUM.search(text)
    if match is not None:
        printed = next(group for group in match.groups() if group is not None)
        counts: dict[str, float] = {}
        for symbol, count in _TERM.findall(printed):
            if count != ".":
                counts[symbol] = counts.get(symbol, 0) + float(count or 1)
        rest = _TERM.sub("", printed)
        if counts and not rest.strip(" \t\r,"):
            return formula_of(counts)
    from crystallm import validity

    try:
        structure = validity.read_structure(text)
    except CrystallmError:
        return None
    return formula_of(structure.composition.get_el_amt_dict())


def evaluate(
    generated: Sequence[Sample],
    known: Iterable[tuple[str, str]],
    *,
    valid: Sequence[bool] | None = None,
    e_above_hull: Sequence[float | None] | None = None,
    workers: int = 1,
    seconds: float = 60.0,
    memory_gb: float = 4.0,
    on_done: OnDone | None = None,
) -> NoveltyResult:
    """Which of the generated crystals are valid, unique, novel and stable.

    Args:
        generated: structures, CIFs, standard texts, or None for what is no crystal.
        known: ids and CIFs of the known set, streamed once; `read_known` reads them from collections.
        valid: verdicts on the generated crystals, if they have been judged; else `validity` judges texts of
            ours as they stand, and all else symmetrised.
        e_above_hull: energy of each generated crystal above the hull of known phases, eV/atom; None for
            those that have none, or for no energies at all.
        workers: processes at a time, each of which can be lost.
        seconds: limit for one task, a handful of comparisons.
        memory_gb: limit for one process, GiB.
        on_done: called with a stage (`reading`, `telling apart`, `known`, `comparing`), what of it is done,
            and the whole (0 where it is not known); from any thread.

    Raises:
        InputError: nothing generated, or verdicts or energies of another number than the crystals.
        CrystallmError: no worker could be started.
    """
    if not generated:
        raise InputError("no generated crystals: give at least one")
    for name, values in (("verdicts", valid), ("energies", e_above_hull)):
        if values is not None and len(values) != len(generated):
            raise InputError(f"{len(values)} {name} for {len(generated)} crystals: give one for each")
    crew = _Crew({"workers": workers, "seconds": seconds, "memory_gb": memory_gb}, on_done)
    keys = [None if sample is None else json.dumps(matching.pack(sample)) for sample in generated]
    crystals = _reduced(keys, crew, judge=valid is None)
    verdicts = [c.valid for c in crystals] if valid is None else list(valid)
    repeats = _repeats(crystals, verdicts, crew)
    wanted = {c.formula for c in crystals if c.formula}
    rows = index(known, wanted, on_row=lambda n: crew.report("known", n, 0))
    matches, unreadable = _matches(crystals, rows, crew)
    energies = [None] * len(keys) if e_above_hull is None else e_above_hull
    found = []
    for i, crystal in enumerate(crystals):
        repeated, match = repeats.found.get(i), matches.found.get(i)
        untold = crystal.reason or repeats.lost.get(i, "")
        unmatched = crystal.reason or matches.lost.get(i, "")
        found.append(
            Verdict(
                valid=verdicts[i],
                unique=not untold and repeated is None,
                novel=not unmatched and match is None,
                repeats=repeated,
                known=None if match is None else rows.rows[crystal.formula][match][0],
                e_above_hull=energies[i],
                reason=untold or unmatched,
            )
        )
    with_energies = e_above_hull is not None
    return NoveltyResult(
        crystals=tuple(found),
        overall=rates(found, with_energies=with_energies),
        among_valid=rates([v for v in found if v.valid], with_energies=with_energies),
        n_known=rows.n_rows,
        n_compared=sum(map(len, rows.rows.values())),
        n_unreadable=rows.n_unreadable + unreadable,
        n_undecided=sum(bool(v.reason) for v in found),
    )


def known_equals(
    crystals: Sequence[Sample],
    known: Iterable[tuple[str, str]],
    *,
    workers: int = 1,
    seconds: float = 60.0,
    memory_gb: float = 4.0,
    executor: Executor | None = None,
) -> list[str | None]:
    """For each crystal the id of the first known one that it equals, or None; see `evaluate`.

    What could not be compared equals none.
    """
    limits = {"workers": workers, "seconds": seconds, "memory_gb": memory_gb, "executor": executor}
    crew = _Crew(limits, None)
    keys = [None if sample is None else json.dumps(matching.pack(sample)) for sample in crystals]
    found = _reduced(keys, crew, judge=False)
    rows = index(known, {crystal.formula for crystal in found if crystal.formula})
    matches, _ = _matches(found, rows, crew)
    return [
        rows.rows[crystal.formula][matches.found[i]][0] if i in matches.found else None
        for i, crystal in enumerate(found)
    ]


def rates(verdicts: Sequence[Verdict], *, with_energies: bool) -> Rates:
    """The rates that follow from verdicts."""

    def share(name: str, of: Sequence[Verdict] = verdicts) -> float:
        known = verdicts and (with_energies or not name.endswith("stable"))
        return sum(getattr(v, name) for v in of) / len(verdicts) if known else math.nan

    new = [v for v in verdicts if v.unique and v.novel]
    names = ("valid", "unique", "novel", "vun", "stable", "metastable")
    shares = {name: share(name) for name in names}
    return Rates(len(verdicts), **shares, sun=share("stable", new), msun=share("metastable", new))


@dataclass(frozen=True, slots=True)
class _Crew:
    """Worker processes with their limits, and who hears of what is done."""

    limits: Mapping[str, Any]
    on_done: OnDone | None

    def run(self, function: str, tasks: Sequence[Any], stage: str = "") -> list[Any]:
        """Apply a function of this module to tasks."""
        done: list[int] = []  # of tasks; to append is atomic

        def count(number: int) -> None:
            done.append(number)
            if stage:
                self.report(stage, len(done), len(tasks))

        return pool.run(f"{__name__}:{function}", tasks, on_done=count, **self.limits)

    def report(self, stage: str, done: int, total: int) -> None:
        if self.on_done is not None:
            self.on_done(stage, done, total)


# -- each crystal for itself ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reduced:
    """A crystal as it is compared.

    Attributes:
        valid: the verdict of `validity`, False where it was not asked.
        formula: as `formula_of`; "" where it can't be compared.
        n_atoms: atoms of the primitive cell.
        primitive: the packed cell, as JSON; "" likewise.
        reason: why it can't be compared; "" if it can.
    """

    valid: bool = False
    formula: str = ""
    n_atoms: int = 0
    primitive: str = ""
    reason: str = "no crystal"


def reduce_record(task: Mapping[str, Any]) -> dict[str, Any]:
    """Judge a packed crystal and reduce its cell, for a worker process; a record of `Reduced`."""
    from crystallm import validity

    record = json.loads(task["sample"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pymatgen warns of each radius and electronegativity it lacks
        try:
            crystal = matching.unpack(record)
        except CrystallmError as error:
            return asdict(Reduced(reason=f"no crystal: {error}"))
        valid = (
            task["judge"] and validity.check(record.get("text") or crystal.to(fmt="cif"), what="auto").valid
        )
        primitive = _primitive(crystal)
    if isinstance(primitive, str):
        return asdict(Reduced(valid=valid, reason=primitive))
    formula = formula_of(crystal.composition.get_el_amt_dict())
    return asdict(Reduced(valid, formula, len(primitive), json.dumps(matching.pack(primitive)), reason=""))


def _primitive(crystal: Structure) -> Structure | str:
    """The primitive Niggli cell, or why there is none to compare."""
    if not crystal.is_ordered:
        return "its sites are shared"
    if len(crystal) > matching.MAX_ATOMS:
        return f"{len(crystal)} atoms are more than the {matching.MAX_ATOMS} that are compared"
    if not 0 < matching.stretch(crystal.lattice) < MAX_STRETCH:
        return "its cell is too long or too flat to be compared"
    # What the matcher would do first, each time; it is told to leave it out.
    return crystal.get_reduced_structure().get_primitive_structure()


def _reduced(keys: Sequence[str | None], crew: _Crew, *, judge: bool) -> list[Reduced]:
    """Crystals as they are compared; what is identical is reduced once."""
    distinct = list(dict.fromkeys(key for key in keys if key is not None))
    answers = crew.run("reduce_record", [{"sample": key, "judge": judge} for key in distinct], "reading")
    found: dict[str | None, Reduced] = {None: Reduced()}
    for key, answer in zip(distinct, answers, strict=True):
        lost = isinstance(answer, pool.Lost)
        found[key] = Reduced(reason=f"not compared: {answer.reason}") if lost else Reduced(**answer)
    return [found[key] for key in keys]


# -- which equal each other ----------------------------------------------------------------------------------


@dataclass(slots=True)
class _Found:
    """For crystals by index: the number of what they equal, or why that could not be found."""

    found: dict[int, int] = field(default_factory=dict)
    lost: dict[int, str] = field(default_factory=dict)


def fold_record(task: Mapping[str, Any]) -> list[int | None]:
    """For each new crystal, the number of the head that it equals, for a worker process.

    Heads are numbered on by new crystals that equal none; None stands for these.
    """
    heads = [_unpacked(packed) for packed in task["heads"]]
    answer: list[int | None] = []
    for packed in task["new"]:
        crystal = _unpacked(packed)
        number = next((i for i, head in enumerate(heads) if _equal(crystal, head)), None)
        if number is None:
            heads.append(crystal)
        answer.append(number)
    return answer


def _repeats(crystals: Sequence[Reduced], valid: Sequence[bool], crew: _Crew) -> _Found:
    """The first equal of each crystal that has one, told apart formula by formula, side by side."""

    def cells(members: Sequence[int]) -> list[str]:
        return [crystals[i].primitive for i in members]

    result = _Found()
    firsts: dict[str, int] = {}  # by primitive cell: what is identical needs no comparison
    waiting: dict[tuple[str, int], list[int]] = {}
    for i in sorted(range(len(crystals)), key=lambda i: not valid[i]):
        crystal = crystals[i]
        if not crystal.reason and firsts.setdefault(crystal.primitive, i) == i:
            waiting.setdefault((crystal.formula, crystal.n_atoms), []).append(i)
    heads = {bucket: [members.pop(0)] for bucket, members in waiting.items()}
    size = dict.fromkeys(waiting, FOLDED)
    total = sum(map(len, waiting.values()))
    while left := sum(map(len, waiting.values())):
        crew.report("telling apart", total - left, total)
        buckets = [bucket for bucket, members in waiting.items() if members]
        chosen = [waiting[bucket][: size[bucket]] for bucket in buckets]
        tasks = [
            {"heads": cells(heads[bucket]), "new": cells(new)}
            for bucket, new in zip(buckets, chosen, strict=True)
        ]
        for bucket, new, answer in zip(buckets, chosen, crew.run("fold_record", tasks), strict=True):
            if isinstance(answer, pool.Lost) and len(new) > 1:
                size[bucket] = max(1, len(new) // 8)
                continue
            del waiting[bucket][: len(new)]
            if isinstance(answer, pool.Lost):
                result.lost[new[0]] = f"not told from others: {answer.reason}"
                continue
            size[bucket] = min(FOLDED, 2 * size[bucket])
            for i, number in zip(new, answer, strict=True):
                if number is None:
                    heads[bucket].append(i)
                else:
                    result.found[i] = heads[bucket][number]
    crew.report("telling apart", total, total)
    for i, crystal in enumerate(crystals):
        first = firsts.get(crystal.primitive, i)
        if first != i:
            result.found[i] = result.found.get(first, first)
    return result


# -- which are known -----------------------------------------------------------------------------------------


def match_record(task: Mapping[str, Any]) -> dict[str, Any]:
    """Which known crystals equal the generated ones, for a worker process.

    Returns:
        `match`: for each generated one the number of the first that does, or None; `unreadable`: numbers of
        known ones that are no crystal.
    """
    crystals = [_unpacked(packed) for packed in task["crystals"]]
    match: list[int | None] = [None] * len(crystals)
    unreadable = []
    for number, text in enumerate(task["known"]):
        known = _known(text)
        if known is None:
            unreadable.append(number)
            continue
        for i, crystal in enumerate(crystals):
            if match[i] is None and _equal(crystal, known):
                match[i] = number
    return {"match": match, "unreadable": unreadable}


_Part = tuple[str, tuple[int, ...], range]
"""Of the comparisons: a formula, generated crystals by index, known ones by number."""


@dataclass(frozen=True, slots=True)
class _Tasks(Sequence[dict[str, Any]]):
    """Tasks of `match_record`, each made when it is asked for: texts are unpacked one task at a time."""

    crystals: Sequence[Reduced]
    known: KnownSet
    parts: Sequence[_Part]

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, number: Any) -> Any:
        formula, members, numbers = self.parts[number]
        return {
            "crystals": [self.crystals[i].primitive for i in members],
            "known": [self.known.text(formula, k) for k in numbers],
        }


def _matches(crystals: Sequence[Reduced], known: KnownSet, crew: _Crew) -> tuple[_Found, int]:
    """The number of the first known crystal of its formula that each equals, and how many can't be read."""
    firsts: dict[str, int] = {}
    buckets: dict[str, list[int]] = {}
    for i, crystal in enumerate(crystals):
        if crystal.formula in known.rows and firsts.setdefault(crystal.primitive, i) == i:
            buckets.setdefault(crystal.formula, []).append(i)
    parts: list[_Part] = []
    for formula, members in buckets.items():
        n_rows = len(known.rows[formula])
        # The tasks of a block of known crystals stand together, so that a worker reads each of them once.
        for start in range(0, n_rows, KNOWN):
            numbers = range(start, min(start + KNOWN, n_rows))
            blocks = range(0, len(members), CRYSTALS)
            parts += [(formula, tuple(members[at : at + CRYSTALS]), numbers) for at in blocks]
    result = _Found()
    unreadable: set[tuple[str, int]] = set()
    # What was lost is asked again, a crystal at a time: a freak among them costs itself alone.
    for last in (False, True):
        answers = crew.run("match_record", _Tasks(crystals, known, parts), "comparing")
        again: list[_Part] = []
        for (formula, asked, numbers), answer in zip(parts, answers, strict=True):
            if not isinstance(answer, pool.Lost):
                unreadable.update((formula, numbers[k]) for k in answer["unreadable"])
                for i, number in zip(asked, answer["match"], strict=True):
                    if number is not None:
                        result.found[i] = min(result.found.get(i, numbers[number]), numbers[number])
            elif last or len(asked) == 1:
                result.lost |= dict.fromkeys(asked, f"not compared with all: {answer.reason}")
            else:
                again += [(formula, (i,), numbers) for i in asked]
        parts = again
        if not parts:
            break
    for i in result.found:  # one equal is enough
        result.lost.pop(i, None)
    for i, crystal in enumerate(crystals):
        first = firsts.get(crystal.primitive, i)
        if first in result.found:
            result.found[i] = result.found[first]
        elif first in result.lost:
            result.lost[i] = result.lost[first]
    return result, len(unreadable)


# -- in a worker process -------------------------------------------------------------------------------------

_Comparable = tuple["Structure", float]  # a primitive cell and its stretch


@lru_cache(maxsize=512)
def _unpacked(packed: str) -> _Comparable:
    crystal = matching.unpack(json.loads(packed))
    return crystal, matching.stretch(crystal.lattice)


@lru_cache(maxsize=4 * KNOWN)
def _known(text: str) -> _Comparable | None:
    """A known crystal as it is compared; None for one that can't be read or compared."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            crystal = matching.unpack({"text": text})
            primitive = _primitive(crystal)
        except (CrystallmError, ValueError):
            return None
    return None if isinstance(primitive, str) else (primitive, matching.stretch(primitive.lattice))


def _equal(one: _Comparable, other: _Comparable) -> bool:
    (crystal, stretch), (head, its) = one, other
    if len(crystal) != len(head) or max(stretch, its) > matching.MAX_STRETCH * min(stretch, its):
        return False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return bool(_matcher().fit(crystal, head, skip_structure_reduction=True))


@cache
def _matcher() -> StructureMatcher:
    from pymatgen.core.structure_matcher import StructureMatcher

    return StructureMatcher(ltol=LTOL, stol=STOL, angle_tol=ANGLE_TOL, primitive_cell=False)
