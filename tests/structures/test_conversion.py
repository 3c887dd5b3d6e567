"""Structures as extended XYZ frames, ASE atoms and JSON."""

from __future__ import annotations

import importlib.util

import pytest

from crystallm.structures import conversion

with_ase = pytest.mark.skipif(importlib.util.find_spec("ase") is None, reason="ase is not installed")


@with_ase
def test_a_fact_cannot_break_a_frame(textbook_structures):
    from io import StringIO

    from ase.io import read

    text = conversion.frame(
        textbook_structures["rutile"], {"note": 'a "b"\n c', "n": 3, "ok": True, "no": None}
    )
    atoms = read(StringIO(text), format="extxyz")
    assert (atoms.info["note"], atoms.info["n"], bool(atoms.info["ok"])) == ("a 'b' c", 3, True)
    assert "no" not in atoms.info
    assert len(atoms) == 6
