"""Public face of `cif.tokenizer`: text to ids and back, with the 371 published tokens."""

from crystallm.cif.tokenizer import UNKNOWN, decode, encode, vocabulary

__all__ = ["UNKNOWN", "decode", "encode", "vocabulary"]
