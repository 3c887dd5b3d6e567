"""The public face of the tokenizer of CIF texts."""

from __future__ import annotations

import crystallm.tokenizer as face
from crystallm.cif import tokenizer


def test_the_face_has_the_names_of_the_tokenizer():
    assert all(getattr(face, name) is getattr(tokenizer, name) for name in face.__all__)
    assert face.decode(face.encode("data_Na4Cl4\n")) == "data_Na4Cl4\n"
    assert len(face.vocabulary()) == face.UNKNOWN + 1 == 371
