"""Records of the log of a search."""

from __future__ import annotations

import json

import pytest

from crystallm.crystals.crystal import Crystal, Source
from crystallm.language import get_language
from crystallm.sampling.sequence import Sample
from crystallm.structure_search.log_records import from_record, to_record
from crystallm.structure_search.policy import Proposal
from crystallm.structure_search.results import SearchSample

LANGUAGE = get_language("orbits")
IDS = tuple(LANGUAGE.ids("<crystal> Ti 2 O 4 (P4_2/mnm) Ti 2a O 4f V-5 .7 c-9 .3 0.30 2' <end>"))


@pytest.mark.parametrize("with_tokens", [False, True])
def test_a_sample_comes_back_from_its_record(with_tokens):
    crystal = Crystal(LANGUAGE, IDS, log_likelihood=-1.5, source=Source("m", 1, 12, "TiO2"))
    crystal.energy = crystal.objective = -3.25
    n = len(IDS) - 5
    tokens = Sample(
        number=0, index=12, ids=IDS, n_prompt=5, log_probs=(-0.5,) * n, ended=True, forced=(True,) * n
    )
    sample = SearchSample(crystal, 3, 2.5, "tree", call=2, equals=None, sample=tokens)
    record = json.loads(json.dumps(to_record(sample, Proposal(IDS[:5], 0), 0, with_tokens=with_tokens)))
    restored = from_record(record, Crystal(LANGUAGE, record["ids"], source=crystal.source))
    assert (restored.crystal.validity, restored.crystal.energy) == (crystal.validity, -3.25)
    fields = ("simulation", "seconds", "move", "call", "equals")
    assert [getattr(restored, name) for name in fields] == [getattr(sample, name) for name in fields]
    assert restored.sample == (tokens if with_tokens else None)
