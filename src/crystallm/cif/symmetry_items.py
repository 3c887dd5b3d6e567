"""The symmetry that a CIF prints: its operators, or those of its Hall symbol, its H-M symbol or its number.

The first of these that is there counts. A symbol can leave open which axes, or which of two origins, are
meant: then several `Setting`s are returned, and the cell and the printed formula decide (`structure_reader`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from crystallm.errors import TextError, one_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from crystallm.cif.items import Items
    from crystallm.crystallography.space_groups import Floats

OPERATORS = ("_space_group_symop_operation_xyz", "_symmetry_equiv_pos_as_xyz")
MAGNETIC = ("_space_group_symop_magn_operation_xyz", "_space_group_symop_magn_ssg_operation_algebraic")
CENTERINGS = ("_space_group_symop_magn_centering_xyz",)
HALL = ("_space_group_name_hall", "_symmetry_space_group_name_hall")
SYMBOL = ("_space_group_name_h-m_alt", "_symmetry_space_group_name_h-m", "_space_group_name_h-m_full",
          "_space_group_name_h-m", "_symmetry_space_group_name_h-m_alt")  # fmt: skip
NUMBER = ("_space_group_it_number", "_symmetry_int_tables_number")
MAX_OPERATORS = 1000
"""Most operators of a file; a cell of a space group has at most 192."""
TWELFTHS = 24
"""Translations are multiples of 1/24, as gemmi has them."""
_ENDING = re.compile(r"\s*(?::\s*)?(RS|HS|H|R|S|Z|1|2)$", re.IGNORECASE)
_ORIGIN = {"S": "1", "Z": "2", "1": "1", "2": "2"}


@dataclass(frozen=True, slots=True)
class Setting:
    """Operators of a space group.

    Attributes:
        name: of the setting, for messages.
        operators: [n_ops, 3, 4] rotations and translations on fractions.
        number: of the space group; None where it is not known.
        listed: whether the file lists the operators.
    """

    name: str
    operators: Floats
    number: int | None
    listed: bool = False

    def fits(self, metric: Floats) -> bool:
        """Return whether the operators keep lengths and angles of a cell, up to 2 %.

        Args:
            metric: [3, 3] scalar products of the lattice vectors, Å^2.
        """
        if len(self.operators) == 1:
            return True
        rotations = self.operators[:, :, :3]
        turned = np.einsum("oji,jk,okl->oil", rotations, metric, rotations)
        lengths = np.sqrt(np.diag(metric))
        return bool((np.abs(turned - metric) <= 0.04 * np.outer(lengths, lengths)).all())


def settings(items: Items) -> tuple[list[Setting], list[str]]:
    """Return the settings that the printed symmetry can mean, the usual one first, and notes.

    Raises:
        TextError: none is printed, or what is printed is not known or contradicts itself.
    """
    printed = items.column(OPERATORS)
    if printed is not None and (printed := [xyz for xyz in printed if xyz is not None]):
        return _listed(items, _operators(tuple(printed)))
    printed = items.column(MAGNETIC)
    if printed is not None:
        centerings = [_without_time(xyz) for xyz in items.column(CENTERINGS) or ("x,y,z",) if xyz]
        found = _magnetic(tuple(_without_time(xyz) for xyz in printed if xyz), tuple(centerings))
        return [found], ["magnetic moments are left aside"]
    hall, symbol, number = items.first(HALL), items.first(SYMBOL), _number(items)
    if hall is not None:
        found = _of_hall(hall)
        named = {one.number for one in of_symbol(symbol)} if symbol is not None else {number}
        if named - {None, found.number}:
            raise TextError(
                f"the Hall symbol {hall!r} and the symbol {symbol or number!r} contradict each other"
            )
        return [found], []
    if symbol is not None:
        return of_symbol(symbol, number), []
    if number is not None:
        return _of_number(number), []
    raise TextError("it gives no symmetry: neither operators nor the symbol of a space group")


def printed_number(items: Items) -> int | None:
    """Return the number of the group that a CIF names by symbol or number; None for none that is known."""
    symbol = items.first(SYMBOL)
    try:
        return of_symbol(symbol)[0].number if symbol is not None else _number(items)
    except TextError:
        return None


def _listed(items: Items, found: Setting) -> tuple[list[Setting], list[str]]:
    """Return the setting of a list of operators, with a note where a symbol names another group."""
    named = printed_number(items)
    notes = []
    if len(found.operators) > 1 and found.number is not None and named not in (None, found.number):
        symbol = items.first(SYMBOL) or items.first(NUMBER)
        notes.append(f"the operators are those of group {found.number}, and {symbol} is printed")
    return [found], notes


def _number(items: Items) -> int | None:
    value = items.first(NUMBER)
    if value is None:
        return None
    if not value.isdigit() or not 1 <= int(value) <= 230:
        raise TextError(f"{value[:20]!r} is not the number of a space group")
    return int(value)


# -- operators -----------------------------------------------------------------------------------------------


@lru_cache(maxsize=1024)
def _operators(printed: tuple[str, ...]) -> Setting:
    """Return the group of operators.

    Raises:
        TextError: one cannot be read to its last character, or they are no group.
    """
    return _group(_parsed(printed))


@lru_cache(maxsize=64)
def _magnetic(printed: tuple[str, ...], centerings: tuple[str, ...]) -> Setting:
    """Return the group of the operators of a magnetic group, without their time reversal."""
    return _group([one * two for two in _parsed(centerings) for one in _parsed(printed)])


def _without_time(xyz: str) -> str:
    return re.sub(r",\s*[+-]?1\s*$", "", xyz)


def _parsed(printed: Sequence[str]) -> list[Any]:
    """Return gemmi's operators."""
    import gemmi

    if len(printed) > MAX_OPERATORS:
        raise TextError(f"{len(printed)} operators are more than the {MAX_OPERATORS} that are read")
    found = []
    for xyz in printed:
        try:
            found.append(gemmi.Op("".join(xyz.split())).wrap())
        except (ValueError, RuntimeError):
            raise TextError(
                f"the operator {xyz[:40]!r} cannot be read: write one such as 'x, y+1/2, -z'"
            ) from None
    return found


def _group(operators: Sequence[Any]) -> Setting:
    import gemmi

    unique = list({op.triplet(): op for op in operators}.values())
    arrays = _arrays(unique)
    rotations, translations = arrays[:, :, :3], arrays[:, :, 3]
    if (np.abs(np.rint(np.linalg.det(rotations))) != 1).any():
        raise TextError("an operator is not a symmetry: it changes the volume")
    # The product of any two operators is one of them.
    known = {_key(rotation, shift) for rotation, shift in zip(rotations, translations, strict=True)}
    for rotation, shift in zip(rotations, translations, strict=True):
        turned = np.einsum("ij,ojk->oik", rotation, rotations)
        shifts = translations @ rotation.T + shift
        if any(_key(r, t) not in known for r, t in zip(turned, shifts, strict=True)):
            raise TextError(f"the {len(unique)} operators are not a group: one is missing or misprinted")
    try:
        named = gemmi.find_spacegroup_by_ops(gemmi.GroupOps(unique))
    except (ValueError, RuntimeError):
        named = None
    number = 1 if len(unique) == 1 else None if named is None else named.number
    return Setting(f"{len(unique)} operators", arrays, number, listed=True)


def _key(rotation: Floats, shift: Floats) -> bytes:
    twelfths = np.rint(shift * TWELFTHS).astype(np.int64) % TWELFTHS
    return bytes(np.rint(rotation).astype(np.int8)) + bytes(twelfths.astype(np.int8))


def _arrays(operators: Iterable[Any]) -> Floats:
    """Return gemmi's operators as [n_ops, 3, 4]."""
    return (
        np.array([np.hstack([np.array(op.rot), np.array(op.tran)[:, None]]) for op in operators]) / TWELFTHS
    )


# -- symbols -------------------------------------------------------------------------------------------------


@lru_cache(maxsize=256)
def _of_hall(symbol: str) -> Setting:
    import gemmi

    try:
        operators = gemmi.symops_from_hall(symbol)
    except (ValueError, RuntimeError) as error:
        raise TextError(f"the Hall symbol {symbol[:30]!r} is not known ({one_line(error, 60)})") from None
    named = gemmi.find_spacegroup_by_ops(operators)
    return Setting(f"Hall {symbol}", _arrays(operators), None if named is None else named.number)


def of_symbol(symbol: str, number: int | None = None) -> list[Setting]:
    """Return the settings that a Hermann-Mauguin symbol can mean.

    Args:
        symbol: as printed, in any of the settings of gemmi's table, short or full, with `:1`, `:2`, `:H`,
            `:R` or the databases' S (first origin), Z (second), H and R behind it.
        number: that is printed beside it.

    Raises:
        TextError: it is not known, or has another number.
    """
    found, ending = _lookup(symbol)
    if not found:
        raise TextError(f"the space group {symbol[:30]!r} is not known: write one such as 'P 1 21/c 1'")
    if number is not None and all(group.number != number for group in found):
        raise TextError(f"the space group {symbol!r} is no. {found[0].number}, and {number} is printed")
    origin, axes = _ORIGIN.get(ending), ending[:1] if ending[:1] in "HR" else ""
    kept = [
        group
        for group in found
        if (group.ext not in "12" or origin is None or group.ext == origin)
        and (group.ext not in "HR" or not axes or group.ext == axes)
    ]
    return [_setting(group.xhm()) for group in kept]


def _lookup(symbol: str) -> tuple[list[Any], str]:
    """Return the groups of a symbol in gemmi's table, and what stands behind it about its setting."""
    plain = symbol.strip()
    for key in _keys(plain):
        if key in _table():
            return _table()[key], ""
    match = _ENDING.search(plain)
    if match is not None:
        for key in _keys(plain[: match.start()]):
            found = [group for group in _table().get(key, ()) if _may_end(group, match[1].upper())]
            if found:
                return found, match[1].upper()
    return [], ""


def _may_end(group: Any, mark: str) -> bool:
    """Return whether a group has settings that such an ending chooses from."""
    if mark in ("H", "R", "RS", "HS"):
        return group.ext in ("H", "R")
    return group.ext in ("1", "2") or mark == "S"


def _keys(symbol: str) -> list[str]:
    """Return how a symbol may be spelt in the table: as it is, and with -3 for the 3 of older symbols."""
    key = re.sub(r"[\s_()]", "", symbol).replace("\\", "")
    key = key[:1].upper() + key[1:].lower()
    return [key, re.sub(r"(?<=[mnabcd])3", "-3", key)]


@cache
def _table() -> dict[str, list[Any]]:
    """Return the groups of gemmi's table by their symbols without blanks, usual settings first.

    A short monoclinic symbol, P2/m, stands for all its unique axes; b comes first.
    """
    import gemmi
    import spglib

    found: dict[str, list[Any]] = {}
    by_hall: dict[str, Any] = {}
    group: Any
    for group in gemmi.spacegroup_table():
        by_hall.setdefault(group.hall.replace('"', "="), group)
        words = group.hm.split()
        names = ["".join(words)]
        if 3 <= group.number <= 15 and len(words) == 4:
            names.append("".join(word for word in words if word != "1"))
        for name in names:
            found.setdefault(_keys(name)[0], []).append(group)
    for number in range(1, 531):  # those with e, Cmce, and full ones, P2_1/n2_1/m2_1/a
        kind: Any = spglib.get_spacegroup_type(number)
        group = by_hall.get(kind.hall_symbol.replace('"', "="))
        for name in (*kind.international.split("="), kind.international_full):
            key = re.sub(r"[\s_]", "", name)
            # Cmme is Cmma, and with the axes a and b exchanged Cmmb: the usual one of them is meant.
            if (
                group is not None
                and group not in found.get(key, ())
                and (key not in found or not kind.choice[1:])
            ):
                found.setdefault(key, []).append(group)
    for groups in found.values():  # gemmi's order, but one that is the same setting under another name goes
        seen: dict[str, Any] = {}
        for group in groups:
            seen.setdefault(group.hall, group)
        groups[:] = seen.values()
    return found


@lru_cache(maxsize=1024)
def _setting(name: str) -> Setting:
    import gemmi

    group: Any = gemmi.find_spacegroup_by_name(name)
    return Setting(name, _arrays(group.operations()), group.number)


def _of_number(number: int) -> list[Setting]:
    """Return the settings that a number alone can mean: its reference axes, both origins."""
    import gemmi

    groups = [group for group in gemmi.spacegroup_table() if group.number == number]
    usual = next(group for group in groups if group.is_reference_setting())
    return [_setting(group.xhm()) for group in groups if group.hm == usual.hm]
