"""Libraries and collections are loaded together."""

from __future__ import annotations

import subprocess
import sys

import pytest

from crystallm.errors import InputError
from crystallm.references.library import Library
from crystallm.references.load import fingerprint, load_library
from known_crystals import library, member, with_elements


def test_a_library_and_a_cif_are_joined(tmp_path) -> None:
    library().write(tmp_path / "l.parquet")
    with_elements("rutile", ("Pb", "O")).to(str(tmp_path / "mine.cif"))
    both = load_library([tmp_path / "l.parquet", tmp_path / "mine.cif"])
    assert len(both) == len(library()) + 1
    assert {both.id(row) for row in range(len(both))} >= {"mine", "rutile-TiO"}


def test_no_such_file(tmp_path) -> None:
    with pytest.raises(InputError, match="no library of known crystals"):
        load_library([tmp_path / "none.parquet"])


def test_fingerprints_tell_libraries_apart() -> None:
    other = Library.of([("mine", "lab", member("rutile", ("Pb", "O")))])
    assert fingerprint(library()) == fingerprint(Library.joined([library()]))
    assert fingerprint(library()) != fingerprint(other)
    whole = Library.joined([library(), other])
    parts = [Library(whole.table.slice(k, 1)) for k in range(len(whole))]
    assert len({fingerprint(part) for part in [whole, *parts]}) == 1 + len(parts)
    assert fingerprint(Library(whole.table.slice(0))) == fingerprint(whole)
    assert len(fingerprint(Library(whole.table.slice(0, 0)))) == 32


def test_the_bundled_library_needs_neither_pandas_nor_what_compares_crystals() -> None:
    code = (
        "import sys; from crystallm.references.load import load_library; library = load_library(); "
        "library.codes, library.energies; "
        "print({'pandas', 'scipy', 'pymatgen'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
