"""Crystals that every textbook has, and a small network that has learned them by heart."""

from __future__ import annotations

import base64
import signal
from functools import cache
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from pathlib import Path

    from pymatgen.core import Structure


# A busy machine takes any time for an example; a test that is too slow shows elsewhere.
settings.register_profile("crystallm", deadline=None)
settings.load_profile("crystallm")


def pytest_configure() -> None:
    """Let servers of tests hear Ctrl-C: a shell starts deaf to it what it puts into the background."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="
)
"""The smallest picture."""


def textbook() -> dict[str, Structure]:
    """Conventional cells; parameters in Å from Wyckoff, Crystal Structures, vol. 1 and 2 (1963, 1964)."""
    return {name: structure.copy() for name, structure in _textbook().items()}


@cache
def _textbook() -> dict[str, Structure]:
    from pymatgen.core import Lattice, Structure

    make = Structure.from_spacegroup
    return {
        "rocksalt": make("Fm-3m", Lattice.cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]),
        "rutile": make(
            "P4_2/mnm", Lattice.tetragonal(4.594, 2.958), ["Ti", "O"], [[0, 0, 0], [0.306, 0.306, 0]]
        ),
        "perovskite": make(
            "Pm-3m", Lattice.cubic(3.905), ["Sr", "Ti", "O"], [[0.5, 0.5, 0.5], [0, 0, 0], [0.5, 0, 0]]
        ),
        "wurtzite": make(
            "P6_3mc", Lattice.hexagonal(3.811, 6.234), ["Zn", "S"], [[1 / 3, 2 / 3, 0], [1 / 3, 2 / 3, 0.375]]
        ),
        "diamond": make("Fd-3m", Lattice.cubic(3.567), ["C"], [[0, 0, 0]]),
    }


@pytest.fixture(scope="session")
def textbook_structures() -> dict[str, Structure]:
    return textbook()


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Process pools take over idle worker processes of earlier tests: to start one takes seconds."""
    from misbehaving import keep_processes

    keep_processes(monkeypatch)


@pytest.fixture
def inline(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Tasks of worker processes run in this process: to start one takes seconds. Names of their functions."""
    from misbehaving import use_inline_pool

    return use_inline_pool(monkeypatch)


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Charts are laid out and not drawn, which takes longer than most of what is tested around them."""
    from crystallm.visualization import charts

    monkeypatch.setattr(charts, "png", lambda _: PIXEL)


@pytest.fixture(scope="session")
def parrot(tmp_path_factory) -> Path:
    """A folder of weights: a network of the `orbits` language, trained on the textbook for some seconds."""
    import torch

    from crystallm.models import folder
    from crystallm.network.config import ModelConfig
    from crystallm.network.transformer import GPT
    from crystallm.orbits import language, vocabulary

    torch.manual_seed(1)
    texts = [language.OrbitsLanguage().encode(structure) for structure in textbook().values()]
    longest = max(map(len, texts))
    end = vocabulary.families().end
    ids = torch.tensor([text + [end] * (longest - len(text)) for text in texts])  # (B, T)
    config = ModelConfig(
        language="orbits",
        vocab_size=len(vocabulary.vocabulary()),
        context=128,
        n_layer=2,
        n_head=2,
        n_embd=48,
    )
    network = GPT(config).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2, weight_decay=0.0)
    for _ in range(160):
        logits = network(ids[:, :-1])  # (B, T - 1, V)
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1  # what is left is which crystal a bare beginning leads to
    card = {"summary": "five crystals of a textbook"}
    return folder.save(network.eval(), tmp_path_factory.mktemp("weights") / "parrot", card=card)


@pytest.fixture(scope="session")
def babbler(tmp_path_factory) -> Path:
    """A folder of weights: a network that has learned nothing, whose texts are cut off too early."""
    import torch

    from crystallm.models import folder
    from crystallm.network.config import ModelConfig
    from crystallm.network.transformer import GPT
    from crystallm.orbits import vocabulary

    torch.manual_seed(0)
    config = ModelConfig(
        language="orbits", vocab_size=len(vocabulary.vocabulary()), context=12, n_layer=1, n_head=2, n_embd=16
    )
    return folder.save(GPT(config).eval(), tmp_path_factory.mktemp("weights") / "babbler")


@pytest.fixture(scope="session")
def served(parrot, tmp_path_factory):
    """A server with the textbook's network, whose limits no test but those of limits meets."""
    pytest.importorskip("fastapi", reason="the page needs fastapi")
    pytest.importorskip("uvicorn", reason="the page needs uvicorn")
    from served import Served

    limits = (
        *("--max-jobs-per-address=40", "--max-running=4", "--max-waiting=4", "--body-timeout=1.5"),
        *("--max-body-bytes=200000", "--max-samples=64", "--max-structures=3"),
    )
    server = Served(parrot, tmp_path_factory.mktemp("served") / "out", *limits)
    yield server
    server.end()
