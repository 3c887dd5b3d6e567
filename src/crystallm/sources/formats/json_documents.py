"""Read JSON (a crystal, a list, a mapping of ids, an OPTIMADE response, an ASE file) and JSON Lines of these.

An item is recognized by its content; no class that it names is ever loaded.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from crystallm.errors import InputError
from crystallm.sources import streams
from crystallm.sources.entry import MAX_BYTES, Entry, NoCrystalsError, clean, too_large
from crystallm.sources.formats.json_stream import Reader

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

ID_KEYS = ("material_id", "id", "entry_id", "mat_id", "immutable_id", "identifier")
OPTIMADE = ("lattice_vectors", "cartesian_site_positions", "species_at_sites")
OPTIMADE_MORE = ("species", "dimension_types", "nperiodic_dimensions", "structure_features", "assemblies")
ASE = ("numbers", "positions", "cell")
OWN_KEYS = {"lattice", "sites", "structure", "cif", "attributes", *OPTIMADE, *OPTIMADE_MORE, *ASE, "pbc"}
"""Members of an object that is one crystal; only their values are kept."""
HEADS = {"meta", "links", "included", "properties", "jsonapi", "ids", "nextid"}
"""Members of an object that are never a crystal."""
MAX_ODD = 1000
"""Maximum number of members without a crystal that a message names."""


def read_json(path: Path, columns: Sequence[str] = ()) -> Iterator[Entry]:
    """Yield the crystals of a JSON file in its order; see `sources.read`."""
    found = False
    with streams.binary(path) as stream:
        reader = Reader(stream, path, MAX_BYTES)
        for entry in _document(reader, path, columns):
            found = found or entry.text is not None
            yield entry
        reader.end()
    if not found:
        raise NoCrystalsError(f"{str(path)!r} holds no crystal: neither pymatgen's nor OPTIMADE's nor ASE's")


def _document(reader: Reader, path: Path, columns: Sequence[str]) -> Iterator[Entry]:
    start = reader.peek()
    if start == "[":
        yield from (as_entry(item, str(i), columns=columns) for i, item in enumerate(reader.list()))
    elif start == "{":
        yield from _object(reader, path.name.split(".", maxsplit=1)[0], columns)
    elif start:
        raise InputError(f"{str(path)!r} is no JSON of crystals: it begins with {start!r}")


def _object(reader: Reader, name: str, columns: Sequence[str]) -> Iterator[Entry]:
    """Yield the crystals of an object: of its list `data`, of its members, or itself under the given name."""
    own: dict[str, Any] = {}
    odd: list[str] = []
    several = False
    for key in reader.members():
        if key == "data" and reader.peek() == "[":
            several = True
            yield from (as_entry(item, str(i), columns=columns) for i, item in enumerate(reader.list()))
            continue
        value = reader.value()
        if key in OWN_KEYS or key in ID_KEYS or key == "split" or key in columns:
            own[key] = value
        elif key not in HEADS and _holds(value):
            several = True
            yield as_entry(value, key, key=key if key != "data" else "", columns=columns)
        elif isinstance(value, dict) and key not in HEADS and len(odd) < MAX_ODD:
            odd.append(key)
    if _holds(own):
        yield as_entry(own, name, columns=columns)
    elif several:
        yield from (Entry(clean(key), None, "no crystal is in it") for key in odd)


def read_lines(path: Path, columns: Sequence[str] = ()) -> Iterator[Entry]:
    """Yield the crystals of a JSON Lines file in its order; see `sources.read`."""
    found, number = False, 0
    with streams.binary(path) as stream:
        for line_number, line in enumerate(streams.lines(stream, path, MAX_BYTES), start=1):
            if not line.strip():
                continue
            if b"\0" in line:
                raise InputError(f"{str(path)!r} is binary, not JSON Lines")
            try:
                item = json.loads(line.decode("utf-8-sig"))
            except RecursionError:
                raise InputError(
                    f"{str(path)!r}, line {line_number}: nested too deep: that is no crystal"
                ) from None
            except ValueError as error:
                if not found or not line.endswith(b"\n"):
                    raise streams.broken(path, f"line {line_number}: {error}") from None
                yield Entry(str(number), None, f"line {line_number} is no JSON")
                number += 1
                continue
            if _is_head(item):
                continue
            entry = as_entry(item, str(number), columns=columns)
            number += 1
            found = found or entry.text is not None
            yield entry
    if not found:
        raise NoCrystalsError(f"{str(path)!r} holds no crystal: neither pymatgen's nor OPTIMADE's nor ASE's")


def _is_head(item: Any) -> bool:
    """Return whether a line describes an OPTIMADE database, not a structure."""
    return isinstance(item, dict) and (
        "x-optimade" in item or (item.get("type", "structures") != "structures" and not _holds(item))
    )


def _holds(item: Any) -> bool:
    """Return whether an object looks like a crystal, or a record of one."""
    return isinstance(item, dict) and _payload(item) is not None


def _payload(item: Mapping[str, Any]) -> tuple[str, Any] | None:
    """Return format and content of an object that is a crystal or holds one."""
    for within in (item, item.get("attributes")):
        if isinstance(within, dict) and all(key in within for key in OPTIMADE):
            kept = {key: within[key] for key in (*OPTIMADE, *OPTIMADE_MORE) if key in within}
            return "optimade", kept
    if isinstance(item.get("cif"), str):
        return "cif", item["cif"]
    for crystal in (item.get("structure"), item):
        if isinstance(crystal, str) and "_cell_length_a" in crystal:
            return "cif", crystal
        if isinstance(crystal, str) and crystal.lstrip().startswith("{"):
            return "pymatgen", crystal
        if isinstance(crystal, dict) and "lattice" in crystal and "sites" in crystal:
            return "pymatgen", {"lattice": crystal["lattice"], "sites": crystal["sites"]}
    if all(key in item for key in ASE):
        return "ase", {key: _array(item[key]) for key in (*ASE, "pbc") if key in item}
    return None


def _array(value: Any) -> Any:
    """Return nested lists of an array of ASE: `{"__ndarray__": [shape, type, flat]}`, or that as `array`."""
    while isinstance(value, dict) and "array" in value:
        value = value["array"]
    packed = value.get("__ndarray__") if isinstance(value, dict) else None
    if not isinstance(packed, list) or len(packed) != 3 or not isinstance(packed[2], list):
        return value
    shape, _, flat = packed
    if isinstance(shape, list) and len(shape) == 2 and shape[1] == 3:
        return [flat[i : i + 3] for i in range(0, len(flat), 3)]
    return flat


def as_entry(item: Any, name: str, *, key: str = "", columns: Sequence[str] = ()) -> Entry:
    """Return the entry of an item.

    Args:
        item: as JSON has it; of a row of several values, the first one that is a crystal counts.
        name: what it is called if it has no id of its own.
        key: what it is called in any case.
        columns: members of the object, or of its `attributes`, whose values the entry gets.
    """
    if isinstance(item, list):
        item = next((value for value in item if _holds(value)), None)
    if isinstance(item, str) and "_cell_length_a" in item:
        item = {"cif": item}
    found = _payload(item) if isinstance(item, dict) else None
    if isinstance(item, dict):
        own = next((item[k] for k in ID_KEYS if isinstance(item.get(k), str | int) and item[k] != ""), name)
        name = clean(key or own)
    if found is None:
        return Entry(name, None, "no crystal is in it")
    form, content = found
    split = clean(item.get("split") or "")
    text = clean(content) if isinstance(content, str) else json.dumps(content)
    if len(text) > MAX_BYTES:
        return too_large(name, len(text), form, "item")
    return Entry(name, text, "", form, split, values=_values(item, columns))


def _values(item: Any, columns: Sequence[str]) -> dict[str, Any]:
    """Return the values of further members of an object."""
    attributes = item.get("attributes")
    more = attributes if isinstance(attributes, dict) else {}
    return {name: (item if name in item else more).get(name) for name in columns if name in {*item, *more}}
