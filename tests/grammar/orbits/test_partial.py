"""The grammar of sequences with a fixed part."""

from __future__ import annotations

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from crystallm.generation import completion
from crystallm.grammar.orbits.partial import FixedPartState
from crystallm.orbits import language as orbits_language


@pytest.fixture(scope="module")
def host():
    """A perovskite with a mobile frame: Pnma, so that cell and coordinates are free."""
    return Structure.from_spacegroup(
        "Pnma",
        Lattice.orthorhombic(5.44, 7.64, 5.38),
        ["Ca", "Ti", "O", "O"],
        [[0.035, 0.25, 0.993], [0, 0, 0.5], [0.484, 0.25, 0.071], [0.289, 0.037, 0.711]],
    )


def test_what_is_offered_can_always_be_completed(host):
    """Random choices among what the rules offer end in a crystal that holds all that is known."""
    rng = np.random.default_rng(5)
    part = host.copy()
    part.remove_species(["O"])
    known = completion.fixed_part(part, "CaTiO3")
    prompt = orbits_language.prompt(known.composition, known.space_group)
    for _ in range(40):
        state = FixedPartState(known)
        ids = list(prompt)
        for token in prompt:
            state.advance(token)
            state.settle()
        while options := state.allowed():
            token = int(rng.choice(list(options)))
            ids.append(token)
            back = state.advance(token)
            del ids[len(ids) - back :]
        told = orbits_language.from_ids(ids)
        counts = dict.fromkeys(("Ca", "Ti", "O"), 0)
        for orbit in told.orbits:
            counts[orbit.element] += int(orbit.label[:-1])
        assert counts == {"Ca": 4, "Ti": 4, "O": 12}
        assert told.cell == known.cell
