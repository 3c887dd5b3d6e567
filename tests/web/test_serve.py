"""What a server loads before it starts."""

from __future__ import annotations

import contextlib
import signal
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest

from crystallm.errors import CrystallmError, InputError

pytest.importorskip("uvicorn", reason="the page needs uvicorn")

from crystallm.storage.files import locked
from crystallm.web import serve
from crystallm.web.options import ServeOptions, ServerLimits
from served import MORSE, Served
from web_requests import RUTILE


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


def test_clients_that_follow_a_job_see_the_end_of_the_server(parrot, tmp_path):
    server = Served(parrot, tmp_path / "out")
    try:
        job = server.post({**RUTILE, "n": 100, "energy": MORSE, "relax": True}).json["id"]
        with ThreadPoolExecutor(4) as threads:
            followers = [threads.submit(lambda: list(server.events(job))) for _ in range(4)]
            next(server.events(job))
            server.process.send_signal(signal.SIGTERM)
            server.process.wait(300)
            last = [follower.result()[-1] for follower in followers]
        assert {(event, data["state"]) for _, event, data in last} == {("state", "interrupted")}
        assert "Traceback" not in server.log()
        assert "graceful" not in server.log()
    finally:
        server.end()


def test_idle_connections_leave_room_for_others(parrot, tmp_path):
    server = Served(parrot, tmp_path / "out", "--max-connections=8", "--body-timeout=2")
    try:
        idle = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(20)]
        for one in idle[::2]:
            with contextlib.suppress(OSError):  # of those that are closed already
                one.sendall(b"GET / HT")
        for one in idle:  # those above the bound at once, the others when no head has come
            one.settimeout(60)
            with contextlib.suppress(ConnectionError):
                assert one.recv(1) == b""
        assert server.done({**RUTILE, "n": 1})["state"] == "done"
        for one in idle:
            one.close()
    finally:
        server.end()


def test_open_files_are_kept_for_work(monkeypatch):
    resource = pytest.importorskip("resource")
    for most, spare in ((1024, 768), (100, 50), (resource.RLIM_INFINITY, float("inf"))):
        monkeypatch.setattr(resource, "getrlimit", lambda _, most=most: (most, most))
        assert serve._spare_files() == spare
