"""Walks through a grammar: random ones, and those of given sequences."""

from __future__ import annotations

from crystallm.cif import tokenizer


def walk(state, ids, rng):
    """Choose uniformly among what is allowed until nothing is; `state` stands behind `ids`."""
    ids = list(ids)
    for _ in range(5000):
        options = list(state.allowed())
        if not options:
            return ids
        ids.append(rng.choice(options))
        back = state.advance(ids[-1])
        del ids[len(ids) - back :]
    raise AssertionError("a walk without end")


class TakenBackError(Exception):
    """A token that put atoms too close."""


def follow(rules, ids):
    """The state behind a text, taken token by token, and how many tokens were a choice."""
    state, n_choices = rules.start([]), 0
    for token in ids:
        n_choices += len(state.allowed()) > 1
        if state.advance(token):
            raise TakenBackError
    return state, n_choices


def written(rules, rng, prompt=()):
    """The text of a walk of uniform choices behind a prompt."""
    state, ids = rules.start(prompt), list(prompt)
    while state.allowed():
        ids.append(rng.choice(list(state.allowed())))
        back = state.advance(ids[-1])
        del ids[len(ids) - back :]
    return tokenizer.decode(ids)


def forced(state):
    """What must be written from here on, up to the next choice."""
    ids = []
    while len(state.allowed()) == 1:
        ids.append(state.allowed()[0])
        state.advance(ids[-1])
    return tokenizer.decode(ids)


def offered(rules, text):
    """What may come behind the beginning of a text, as one string."""
    return tokenizer.decode(sorted(rules.start(tokenizer.encode(text)).allowed()))
