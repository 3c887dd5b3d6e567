"""The tokens of the orbits language and their families."""

from __future__ import annotations

import hashlib

from crystallm.crystallography import elements, space_groups
from crystallm.orbits import vocabulary


def test_the_vocabulary_is_the_one_that_networks_were_trained_with() -> None:
    tokens = vocabulary.vocabulary()
    assert len(tokens) == len(set(tokens)) == vocabulary.families().size == 1410
    digest = hashlib.sha256("\n".join(tokens).encode()).hexdigest()
    assert digest == "0b48ddd291309aa7a5b9a604877b2d8d97a88ce680ea73bb781ef39d7a868979"


def test_families_begin_where_their_tokens_do() -> None:
    tokens, families = vocabulary.vocabulary(), vocabulary.families()
    firsts = {name: tokens[i] for name, i in families._asdict().items() if name != "size"}
    assert firsts == {
        "start": "<crystal>", "end": "<end>", "element": elements.symbols()[0], "hundreds": "+100",
        "number": "0", "group": "(P1)", "label": "1a", "volume": "V-90", "ratio_b": "b-75",
        "ratio_c": "c-75", "angle": "10°", "rest": ".0", "coarse": "0.00", "fine": "0'",
    }  # fmt: skip
    assert tokens[families.group : families.label] == tuple(f"({s})" for s in space_groups.symbols())
