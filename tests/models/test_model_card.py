"""The model card."""

from __future__ import annotations

from crystallm.models import load, model_card
from random_models import random_model


def test_a_card_says_what_is_known_and_what_is_not():
    text = model_card.markdown(load.load_model("default", device="cpu"), "org/crystals")
    head = text.split("---")[1]
    assert "library_name: crystallm" in head
    assert 'load_model("hf:org/crystals")' in text
    assert "| Alexandria | 10088 | CC-BY-4.0 |" in text
    assert "0.494" in text
    bare = model_card.markdown(random_model("cif", "gpt2"))
    assert bare.count("Not given.") == 5
