"""tokenizer.json: the same tokens as ours."""

from __future__ import annotations

import importlib.util
import json

import pytest

from crystallm import language
from crystallm.cif import tokenizer
from crystallm.models import huggingface_tokenizer
from real_crystals import published as texts

with_tokenizers = pytest.mark.skipif(
    importlib.util.find_spec("tokenizers") is None, reason="tokenizers is not installed"
)


def fast(name):
    from tokenizers import Tokenizer

    return Tokenizer.from_str(json.dumps(huggingface_tokenizer.content(language.get_language(name))))


@with_tokenizers
def test_the_tokenizer_of_the_published_language_is_ours():
    there = fast("cif")
    for row in texts():
        ids = there.encode(row["text"], add_special_tokens=False).ids
        assert ids == tokenizer.encode(row["text"])
        assert there.decode(ids, skip_special_tokens=False) == tokenizer.decode(ids)
    head = "_symmetry_space_group_name_H-M"
    symbols = ("Pm\nPm Pm1 2", "P4_222\n", " Fm-3m \n", "'Fm-3m'\n", "\n", " \n")
    lines = [f"{head} {symbol}" for symbol in symbols]
    strange = ["data_Xx4 foo ü ?\t\t_cell_length_a   4.5", "Pm", "", "\n\n", "<unk>", f"x{head} P6", head]
    for odd in (*lines, *strange):
        assert there.encode(odd, add_special_tokens=False).ids == tokenizer.encode(odd), odd


@with_tokenizers
def test_the_tokenizer_of_our_language_is_ours():
    tongue, there = language.get_language("orbits"), fast("orbits")
    for row in texts()[:40]:
        from crystallm.sources import parsing

        ids = tongue.encode(parsing.structure(row["cif"]))
        text = tongue.text(ids)
        assert there.encode(text, add_special_tokens=False).ids == ids
        assert there.encode(text.replace(" ", "\n"), add_special_tokens=False).ids == ids
        assert there.decode(ids, skip_special_tokens=False) == text
    every = list(range(len(tongue.vocabulary())))
    assert there.encode(tongue.text(every), add_special_tokens=False).ids == every
    with pytest.raises(Exception, match="UNK"):
        there.encode("<crystal> Xx 3")
