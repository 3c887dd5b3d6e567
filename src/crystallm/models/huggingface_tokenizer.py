"""tokenizer.json for Hugging Face's `tokenizers`, for both languages.

    orbits   words between blanks; an unknown word is an error, as in our tokenizer
    cif      the scanner of `crystallm.cif.tokenizer` as a regular expression. The text after the tag of the
             space group is marked first, since `Pm` is a group there and an element elsewhere; the mark
             occurs in no text, and is removed when ids are decoded

Does not depend on that library. A text with the tag twice in a line, or with white space other than blanks,
tabs and line ends after it, is split differently than by our tokenizer; no CIF has either.
"""

from __future__ import annotations

import re
from typing import Any

from crystallm.cif import tokenizer
from crystallm.cif.block import GROUP
from crystallm.language import Language

MARK = "\ue000"
"""Marks a space group: a private-use character of Unicode."""
UNKNOWN = "<unk>"


def special(language: Language) -> dict[str, str]:
    """Return the special tokens by Hugging Face's names of their roles."""
    if len(language.end_ids) == 1:
        begin, end = (language.text([i]) for i in (*language.prompt()[:1], *language.end_ids))
        return {"bos_token": begin, "eos_token": end, "pad_token": end}
    # A crystal ends with two line ends, which are not a single token.
    return {"unk_token": UNKNOWN, "pad_token": UNKNOWN}


def content(language: Language) -> dict[str, Any]:
    """Return the content of tokenizer.json."""
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
            "unk_token": UNKNOWN,  # not in the vocabulary: an unknown word is an error
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
                # \K: the match before it is not replaced.
                _replace(rf"{MARK}[^\n]*[^\n ]\K +(?=\n|\z)", ""),
            ],
        },
        "pre_tokenizer": {
            "type": "Split",
            # Words end where the tag with a group begins, as our scanner splits its line there.
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
