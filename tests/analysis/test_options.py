"""Options of `crystallm embeddings`: endings of files."""

from __future__ import annotations

from pathlib import Path

import pytest

from crystallm.analysis.options import EmbeddingsOptions
from crystallm.errors import InputError


def test_files_have_their_endings():
    options = EmbeddingsOptions(out="a.PARQUET", picture="b.png")
    assert (options.out, options.picture) == (Path("a.PARQUET"), Path("b.png"))


@pytest.mark.parametrize(
    ("values", "endings"), [({"out": "a.png"}, ".csv or .parquet"), ({"picture": "b.csv"}, ".png")]
)
def test_other_endings_are_rejected(values, endings):
    with pytest.raises(InputError, match=f"name a file that ends in {endings}"):
        EmbeddingsOptions.build(values)
