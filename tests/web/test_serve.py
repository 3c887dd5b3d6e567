"""What a server loads before it starts."""

from __future__ import annotations

import pytest

from crystallm.errors import CrystallmError, InputError

pytest.importorskip("uvicorn", reason="the page needs uvicorn")

from crystallm.storage.files import locked
from crystallm.web import serve
from crystallm.web.options import ServeOptions, ServerLimits
from served import MORSE


@pytest.mark.parametrize(
    ("host", "names", "expected"),
    [
        ("127.0.0.1", None, ["localhost", "127.0.0.1", "[::1]", "127.0.0.1"]),
        (
            "::1",
            "a.example, b.example",
            ["localhost", "127.0.0.1", "[::1]", "[::1]", "a.example", "b.example"],
        ),
        ("::", None, []),
        ("::", "a.example", ["localhost", "127.0.0.1", "[::1]", "[::]", "a.example"]),
    ],
)
def test_a_server_has_local_names_and_those_given(host, names, expected):
    assert serve.host_names(host, names) == expected


def test_keys_are_lines_of_a_file(tmp_path):
    path = tmp_path / "keys"
    path.write_text("# of a laboratory\n\nsesame-sesame-sesame\n  another-key-of-19-c \n")
    assert serve.read_keys(path) == ["sesame-sesame-sesame", "another-key-of-19-c"]
    assert serve.read_keys(None) == []
    path.write_text("# none\n")
    with pytest.raises(InputError, match="has no key"):
        serve.read_keys(path)
    path.write_text("short\n")
    with pytest.raises(InputError, match="5 characters: write at least 16"):
        serve.read_keys(path)
    with pytest.raises(CrystallmError, match="cannot be read"):
        serve.read_keys(tmp_path / "missing")


def test_proxies_are_addresses_or_networks():
    assert serve.trusted_proxies("10.0.0.2, 172.16.0.0/12,::1") == ["10.0.0.2", "172.16.0.0/12", "::1"]
    assert serve.trusted_proxies(None) == []
    with pytest.raises(InputError, match="'10.0.0.300' is not an address"):
        serve.trusted_proxies("10.0.0.2,10.0.0.300")


def test_energy_models_are_those_named_or_those_installed(monkeypatch):
    assert serve.offered_energy_models(None) == []
    assert serve.offered_energy_models(MORSE) == [MORSE]
    with pytest.raises(CrystallmError, match="nothing"):
        serve.offered_energy_models("nothing")

    def require(name):
        if name != "sevennet":
            raise CrystallmError(f"{name} is not installed")

    monkeypatch.setattr(serve.registry, "require", require)
    assert serve.offered_energy_models("installed") == ["sevennet"]


def test_two_models_of_one_name_are_rejected(parrot):
    with pytest.raises(InputError, match="two are named"):
        serve.load_models([str(parrot), str(parrot)], "cpu")


def test_a_folder_has_one_server(tmp_path, parrot):
    options = ServeOptions(models=str(parrot), energy_models=None, out=tmp_path)
    (tmp_path / "jobs").mkdir()
    with locked(tmp_path / "jobs"), pytest.raises(CrystallmError, match="another process writes"):
        serve.serve(options, ServerLimits(), on_start=pytest.fail)
