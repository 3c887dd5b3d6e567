"""Texts become the published ids and come back; any string at all has ids."""

from __future__ import annotations

import gzip
import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crystallm.cif import tokenizer
from crystallm.errors import InputError

GROUP_LINE = "_symmetry_space_group_name_H-M "


@cache
def published() -> list[dict[str, Any]]:
    """500 real structures, their standard texts and ids, made with the original code."""
    with gzip.open(Path(__file__).parents[1] / "golden" / "texts.jsonl.gz", "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def test_published_texts_have_the_published_ids() -> None:
    assert len(published()) == 500
    assert [row["id"] for row in published() if tokenizer.encode(row["text"]) != row["ids"]] == []


def test_published_texts_come_back_from_their_ids() -> None:
    assert [row["id"] for row in published() if tokenizer.decode(row["ids"]) != row["text"]] == []


def test_the_vocabulary_is_the_published_one() -> None:
    tokens = tokenizer.vocabulary()
    assert len(tokens) == len(set(tokens)) == 371
    assert (tokens[0], tokens[123], tokens[142], tokens[tokenizer.UNKNOWN]) == ("Si", "loop_", "\n", "<unk>")
    assert len(tokenizer.space_groups()) == 227


def test_a_group_and_an_element_of_one_name_are_two_tokens() -> None:
    vocabulary = tokenizer.vocabulary()
    assert vocabulary[tokenizer.encode("data_Pm1")[1]] == "Pm"
    assert vocabulary[tokenizer.encode(GROUP_LINE + "Pm\n")[2]] == "Pm_sg"
    assert tokenizer.decode(tokenizer.encode(GROUP_LINE + "Pm\nPm Pm0")) == GROUP_LINE + "Pm\nPm Pm0"


def test_every_group_with_a_token_comes_back() -> None:
    for symbol, i in tokenizer.space_groups().items():
        assert tokenizer.encode(f"{GROUP_LINE}{symbol}\n") == [107, 141, i, 142]
        assert tokenizer.decode([107, 141, i, 142]) == f"{GROUP_LINE}{symbol}\n"


@pytest.mark.parametrize("symbol", ["P4_222", "P6", "P432", "Fm3m", "'P 1'", "Pm extra"])
def test_a_group_without_a_token_is_one_unknown(symbol: str) -> None:
    assert tokenizer.encode(f"{GROUP_LINE}{symbol}\n") == [107, 141, tokenizer.UNKNOWN, 142]


def test_the_beginning_of_a_group_line_is_no_unknown() -> None:
    assert tokenizer.encode(GROUP_LINE) == [107, 141]


def test_blanks_and_tabs_in_a_row_are_one_blank() -> None:
    assert tokenizer.encode("Na  \t Na0") == tokenizer.encode("Na Na0")


def test_what_is_no_token_is_unknown_and_not_lost() -> None:
    assert tokenizer.encode("#") == [tokenizer.UNKNOWN]
    assert tokenizer.decode(tokenizer.encode("Na è 1")) == "Na <unk> 1"


@pytest.mark.parametrize("i", [-1, 371, 10**9])
def test_an_id_outside_the_vocabulary_is_refused(i: int) -> None:
    with pytest.raises(InputError, match=f"{i} is outside"):
        tokenizer.decode([0, i])


@given(st.text(max_size=300))
def test_any_string_has_ids_that_write_it_or_unknown(text: str) -> None:
    ids = tokenizer.encode(text)
    assert all(0 <= i < 371 for i in ids)
    assert tokenizer.encode(tokenizer.decode(ids)) == ids


@given(st.lists(st.integers(0, 370), max_size=60))
def test_any_ids_have_a_text(ids: list[int]) -> None:
    assert tokenizer.decode(ids).count("\n") == ids.count(142)
