"""The tokens of both languages for Hugging Face's `tokenizers`: the content of tokenizer.json.

    orbits   words between blanks; a word that is no token is refused, as by us
    cif      the scanner of `crystallm.cif.tokenizer` as a regular expression. What stands behind the tag
    of the
             space group is marked first, since `Pm` is a group there and an element elsewhere; the mark is
             in no text, and is taken off again when ids are decoded

Plain data: neither writes files nor needs the library. Texts with the tag twice in one line, or with other
white space than blanks, tabs and line ends behind it, are cut otherwise than by us; no CIF has them.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from crystallm.cif import tokenizer
from crystallm.cif.block import GROUP

if TYPE_CHECKING:
    from crystallm.language import Language


MARK = "\ue000"
"""Before a space group: a character of no script (Unicode, private use)."""

UNKNOWN = "<unk>"


def special(language: Language) -> dict[str, str]:
    """Roles of tokens, by the names that Hugging Face has for them."""
    if len(language.end_ids) == 1:
        begin, end = (language.text([i]) for i in (*language.prompt()[:1], *language.end_ids))
        return {"bos_token": begin, "eos_token": end, "pad_token": end}
    # A crystal ends with two line ends in a row, which is no single token.
    return {"unk_token": UNKNOWN, "pad_token": UNKNOWN}


def content(language: Language) -> dict[str, Any]:
    """What tokenizer.json holds."""
    names = set(special(language).values())
    built = _cif(language) if language.writes_cif else _words(language)
    added = [
        {
            "id": i,
            "content": name,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        for i, name in enumerate(language.vocabulary())
        if name in names
    ]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "post_processor": None,
        **built,
    }


def _words(language: Language) -> dict[str, Any]:
    return {
        "normalizer": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "decoder": None,  # tokens with a blank between them
        "model": {
            "type": "WordLevel",
            "vocab": {token: i for i, token in enumerate(language.vocabulary())},
            "unk_token": UNKNOWN,  # none of the vocabulary: an unknown word is an error
        },
    }


def _cif(language: Language) -> dict[str, Any]:
    groups = {i: symbol for symbol, i in tokenizer.space_groups().items()}
    vocab = {MARK + groups[i] if i in groups else token: i for i, token in enumerate(language.vocabulary())}
    others = sorted((t for t in vocab if not t.startswith(MARK)), key=len, reverse=True)
    scanner = "|".join(
        [rf"{MARK}[^\n]*", "[0-9. ]", *map(re.escape, (t for t in others if not re.fullmatch("[0-9. ]", t)))]
    )
    return {
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                _replace(r"[ \t]+", " "),
                _replace(rf"{re.escape(GROUP)} (?=[^\n ])", f"{GROUP} {MARK}"),
                # \K: what stands before it is not replaced.
                _replace(rf"{MARK}[^\n]*[^\n ]\K +(?=\n|\z)", ""),
            ],
        },
        "pre_tokenizer": {
            "type": "Split",
            # Words end where the tag with a group begins, as its line is cut there.
            "pattern": {"Regex": rf"{scanner}|(?:(?!{re.escape(GROUP)} {MARK})\w)+|[^\n]"},
            "behavior": "Isolated",
            "invert": False,
        },
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": MARK}, "content": ""},
                {"type": "Fuse"},
            ],
        },
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": UNKNOWN},
    }


def _replace(pattern: str, by: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": {"Regex": pattern}, "content": by}
