"""The HTTP API: jobs of each kind, their events, files and facts, and what a server lets in."""

from __future__ import annotations

import http.client
import io
import json
import re
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path
from urllib.parse import quote

import pytest

import crystallm
from energies import Morse
from served import MORSE, Served

RUTILE = {"kind": "generate", "formula": "TiO2", "z": 2, "n": 3, "seed": 5}


@pytest.fixture(scope="module")
def rutile(served):
    """A finished job."""
    return served.done(RUTILE)


@pytest.fixture(scope="module")
def relaxed(served):
    """A finished job whose crystals were relaxed."""
    return served.done({**RUTILE, "n": 2, "energy": MORSE, "relax": True})


def test_a_job_gives_the_crystals_that_generate_gives(rutile, parrot):
    crystals = crystallm.generate("TiO2", z=2, n=3, seed=5, model=parrot)
    assert rutile["state"] == "done"
    assert [one["number"] for one in rutile["crystals"]] == [0, 1, 2]
    for crystal, sheet in zip(crystals, rutile["crystals"], strict=True):
        assert sheet["cif"] == crystal.cif
        assert sheet["text"] == crystal.text
        assert sheet["valid"] == crystal.validity.valid
        assert sheet["reasons"] == list(crystal.validity.reasons)
        assert sheet["log_likelihood"] == pytest.approx(crystal.log_likelihood, abs=1e-4)
        assert sheet["structure"]["species"] == [site.specie.symbol for site in crystal.structure]


@pytest.mark.parametrize(
    "ask",
    [
        {"formula": "NaCl", "z": "auto", "space_group": "auto", "n": 5, "seed": 3, "temperature": 1.5},
        {"formula": "SrTiO3", "n": 4, "seed": 2**53 - 1, "top_k": None, "temperature": 0.7},
        {"formula": "ZnS", "z": 2, "space_group": 186, "n": 2, "seed": 0, "top_p": 0.9},
        {"formula": "C8", "space_group": "Fd-3m", "n": 2, "seed": 9, "temperature": 0},
        {"elements": "O-Ti", "n": 2, "seed": 4},
        {"space_group": 225, "n": 2, "seed": 3},
    ],
    ids=["auto", "z left out", "group", "as written, temperature 0", "elements", "group alone"],
)
def test_so_does_one_of_several_jobs_that_are_written_together(ask, served, parrot):
    others = [served.post({**RUTILE, "seed": seed, "n": 6}).json["id"] for seed in range(3)]
    state = served.done({"kind": "generate", **ask})
    options = dict(ask)
    crystals = crystallm.generate(options.pop("formula", None), model=parrot, **options)
    assert [one.get("cif") for one in state["crystals"]] == [_cif(crystal) for crystal in crystals]
    for other in others:
        assert served.over(other)["state"] == "done"


def _cif(crystal):
    try:
        return crystal.cif
    except crystallm.errors.TextError:
        return None


def test_a_seed_that_is_drawn_is_told_and_gives_the_same_again(served):
    ask = {"kind": "generate", "formula": "NaCl", "z": 4, "n": 2}
    first = served.done(ask)
    again = served.done({**ask, "seed": first["ask"]["seed"]})
    assert [one["cif"] for one in again["crystals"]] == [one["cif"] for one in first["crystals"]]
    assert first["ask"]["model"]


def test_tokens_are_told_apart_by_where_they_come_from(rutile):
    for sheet in rutile["crystals"]:
        kinds = [kind for _, kind, _ in sheet["tokens"]]
        assert len(kinds) == sheet["n_tokens"]
        assert kinds[:5] == [0] * 5  # <crystal> Ti 2 O 4
        assert {2, 3} <= set(kinds[5:])
        sampled = [chance for _, kind, chance in sheet["tokens"] if kind == 3]
        assert all(0 <= chance <= 1 for chance in sampled)


def test_a_sheet_tells_the_orbits_with_their_wyckoff_positions(served):
    state = served.done({**RUTILE, "space_group": 136, "n": 1})
    (sheet,) = state["crystals"]
    assert [sheet["orbits"][0][name] for name in ("element", "wyckoff")] == ["Ti", "2a"]
    assert sum(orbit["multiplicity"] for orbit in sheet["orbits"]) == sheet["n_atoms"] == 6
    assert sheet["free_cell"] == ["a", "c"]
    assert len(sheet["view"]["atoms"]) >= 6


def test_events_come_in_order_and_go_on_where_a_client_left(served, rutile):
    whole = list(served.events(rutile["id"]))
    assert [number for number, _, _ in whole] == list(range(1, len(whole) + 1))
    names = [name for _, name, _ in whole]
    assert names[0] == names[-1] == "state"
    assert names.count("crystal") == 3
    assert whole[-1][2]["state"] == "done"
    assert list(served.events(rutile["id"], after=4)) == whole[4:]


def test_equal_crystals_are_counted_and_ranked(rutile):
    ranks = sorted(one["rank"] for one in rutile["crystals"])
    assert ranks == [1, 2, 3]
    for one in rutile["crystals"]:
        alike = [other for other in rutile["crystals"] if other["cluster"] == one["cluster"]]
        assert one["cluster_size"] == len(alike)


def test_energies_rank_and_relaxation_lowers_them(relaxed):
    assert relaxed["state"] == "done"
    by_rank = sorted(relaxed["crystals"], key=lambda one: one["rank"])
    assert by_rank[0]["energy"] <= by_rank[1]["energy"]
    for one in by_rank:
        assert one["relaxed"]["energy"] == one["energy"] < one["relaxed"]["energy_before"]
    curve = [point["energy"] for point in relaxed["curve"]]
    assert curve == sorted(curve, reverse=True)
    assert curve[-1] == by_rank[0]["energy"]


@pytest.mark.parametrize("form", ["cif", "poscar", "extxyz"])
@pytest.mark.parametrize("relaxation", [False, True])
def test_files_hold_the_crystal_of_the_sheet(form, relaxation, served, relaxed):
    from pymatgen.analysis.structure_matcher import StructureMatcher
    from pymatgen.core import Structure

    from crystallm.structures import conversion

    sheet = relaxed["crystals"][0]
    path = f"/api/v1/jobs/{relaxed['id']}/crystals/0/file?form={form}&relaxed={str(relaxation).lower()}"
    answer = served.get(path)
    assert answer.status == 200
    assert "attachment" in answer.headers["content-disposition"]
    text = answer.body.decode()
    if form == "extxyz":
        from ase.io import read
        from pymatgen.io.ase import AseAtomsAdaptor

        atoms = read(io.StringIO(text), format="extxyz")
        found = AseAtomsAdaptor.get_structure(atoms)
        (known,) = Morse().predict([found])
        assert atoms.get_potential_energy() / len(atoms) == pytest.approx(known.energy, abs=1e-5)
    else:
        found = Structure.from_str(text, fmt=form)
    expected = conversion.from_json((sheet["relaxed"] if relaxation else sheet)["structure"])
    assert len(found) == len(expected)
    assert found.volume == pytest.approx(expected.volume, rel=1e-4)
    matcher = StructureMatcher(ltol=1e-3, stol=1e-3, angle_tol=0.01, scale=False, primitive_cell=False)
    assert matcher.fit(found, expected)


def test_a_pattern_has_the_peaks_of_its_cell(served):
    state = served.done(
        {"kind": "generate", "formula": "NaCl", "z": 4, "space_group": 225, "n": 1, "seed": 1}
    )
    a = state["crystals"][0]["cell"][0]
    found = served.get(f"/api/v1/jobs/{state['id']}/crystals/0/pattern").json
    peaks = {tuple(sorted(map(abs, peak["hkl"][0]))): peak for peak in found["peaks"]}
    assert peaks[0, 0, 2]["d"] == pytest.approx(a / 2, abs=1e-3)
    assert (0, 0, 1) not in peaks  # F-centred


def test_an_archive_holds_all_forms_and_facts(served, relaxed):
    answer = served.get(f"/api/v1/jobs/{relaxed['id']}/archive")
    with zipfile.ZipFile(io.BytesIO(answer.body)) as archive:
        names = archive.namelist()
        facts = json.loads(archive.read("crystals.json"))
        written = {name: archive.read(name).decode() for name in names if name.startswith("extxyz/")}
    assert sum(name.startswith("cif/") for name in names) == 2
    assert sum(name.startswith("relaxed/") for name in names) == 2
    assert {name.rpartition(".")[2] for name in names} == {"cif", "vasp", "extxyz", "json"}
    assert facts["ask"]["seed"] == 5
    assert len(facts["crystals"]) == 2
    for one in relaxed["crystals"]:  # as they were written, and so their energies
        (text,) = [text for name, text in written.items() if name.endswith(f"-{one['number']:04d}.extxyz")]
        (energy,) = re.findall(r"energy=(\S+)", text)
        assert float(energy) / one["n_atoms"] == pytest.approx(one["relaxed"]["energy_before"], abs=1e-5)


def test_crystals_of_others_are_judged_and_relaxed(served, textbook_structures):
    cifs = [textbook_structures["rocksalt"].to(fmt="cif"), "data_nothing\n"]
    judged = served.done({"kind": "evaluate", "structures": cifs})
    good, bad = judged["crystals"]
    assert good["valid"]
    assert good["space_group"] == "Fm-3m"
    assert not bad["valid"]
    assert bad["reasons"]
    settled = served.done({"kind": "relax", "structures": cifs, "steps": 3})
    assert settled["ask"]["energy"] == MORSE
    good, bad = settled["crystals"]
    assert good["relaxed"]["steps"] <= 3
    assert bad["energy"] is None
    assert bad["energy_reason"] == "no crystal"


def test_a_formula_is_read_while_it_is_typed(served):
    found = served.get("/api/v1/reading?formula=TiO2&z=2").json
    assert found["composition"] == [["Ti", 2], ["O", 4]]
    assert 136 in found["groups"]
    assert 225 not in found["groups"]
    assert "do not add up to 2 Ti" in found["misfits"]["225"]
    assert len(found["groups"]) + len(found["misfits"]) == 230
    held = served.get("/api/v1/reading?formula=TiO2&z=4&space_group=225").json
    assert held["z_possible"][0] == 4


def test_z_is_open_where_a_reduced_formula_says_nothing_of_it(served):
    compound, cell = (served.get(f"/api/v1/reading?formula={name}").json for name in ("TiO2", "Ti2O4"))
    assert (compound["z"], compound["z_unsaid"]) == (None, "auto")
    assert 225 in compound["groups"]  # with four formula units
    assert (cell["z"], cell["z_unsaid"], cell["formula"]) == (2, None, "Ti2O4")
    assert 225 not in cell["groups"]
    state = served.done({"kind": "generate", "formula": "ZnS", "n": 1, "seed": 1})
    assert state["ask"]["z"] == "auto"
    assert state["note"] == "ZnS, Z = 2 (100 %)"
    assert served.done({"kind": "generate", "formula": "Zn2S2", "n": 1, "seed": 1})["ask"]["z"] is None


@pytest.mark.parametrize(
    ("written", "number"), [("Pbnm", 62), ("P2_1/n", 14), ("fm3m", 225), ("R-3m:H", 166), ("no. 62", 62)]
)
def test_a_group_is_read_in_any_setting_as_on_the_command_line(written, number, served):
    query = f"formula=CaF2&z=12&space_group={quote(written)}"
    assert served.get(f"/api/v1/reading?{query}").json["group"]["number"] == number


def test_a_job_may_name_its_group_in_any_setting(served, parrot):
    ask = {"kind": "generate", "formula": "SrTiO3", "z": 4, "space_group": "Pbnm", "n": 1, "seed": 2}
    crystals = crystallm.generate("SrTiO3", z=4, space_group=62, n=1, seed=2, model=parrot)
    assert [one["cif"] for one in served.done(ask)["crystals"]] == [one.cif for one in crystals]


@pytest.mark.parametrize(
    ("query", "field", "message"),
    [
        ("formula=Xy2", "formula", "Xy is no element"),
        ("formula=tio2", "formula", "did you mean"),
        ("formula=TiO2&z=0", "z", "whole number"),
        ("formula=TiO2&z=two", "z", "whole number"),
        ("formula=TiO2&z=2&space_group=225", "space_group", "cannot fill Fm-3m"),
        ("formula=TiO2&space_group=Fm7m", "space_group", "no space group 'Fm7m'"),
        ("formula=TiO2&space_group=231", "space_group", "no space group 231"),
        ("formula=TiO2&space_group=R-3m:R", "space_group", "no space group 'R-3m:R'"),
        ("formula=TiO2&z=200", "z", "600 atoms: this server takes 200"),
        ("formula=PoO2", "formula", "has no token"),
    ],
)
def test_what_cannot_be_read_is_told_with_its_field(query, field, message, served):
    answer = served.get(f"/api/v1/reading?{query}")
    assert answer.status == 422
    assert answer.error["field"] == field
    assert message in answer.error["message"]


@pytest.mark.parametrize(
    ("ask", "field", "message"),
    [
        ({}, "formula", "write a formula, such as TiO2, or elements"),
        ({"elements": "Ti-Po"}, "elements", "has no token"),
        ({"elements": "Ti-O", "formula": "TiO2"}, "elements", "give one or the other"),
        ({"space_group": "Fm7m"}, "space_group", "no space group 'Fm7m'"),
        ({"space_group": "auto"}, "space_group", "leave it out"),
    ],
)
def test_what_cannot_be_written_without_a_formula_is_told_with_its_field(ask, field, message, served):
    answer = served.post({"kind": "generate", **ask})
    assert answer.status == 422
    assert answer.error["field"] == field
    assert message in answer.error["message"]


def test_the_server_tells_what_it_offers(served):
    about = served.get("/api/v1/about").json
    assert about["energies"] == [MORSE]
    assert len(about["elements"]) == 118
    assert sum(one["known"] for one in about["elements"]) == 89
    assert len(about["space_groups"]) == 230
    assert about["limits"]["samples"] == 64
    assert served.get("/healthz").json == {"status": "ok"}


def test_a_monitor_reads_counters(served, rutile):
    text = served.get("/metrics").body.decode()
    counts = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            name, _, value = line.rpartition(" ")
            counts[name] = float(value)
    assert counts['crystallm_crystals_total{kind="generate"}'] >= 3
    assert counts["crystallm_texts_written"] >= 3
    assert counts["crystallm_resident_memory_bytes"] > 1e7
    assert text.count("# TYPE crystallm_requests_total counter") == 1


def test_the_api_describes_itself(served):
    described = served.get("/api/v1/openapi.json").json
    post = described["paths"]["/api/v1/jobs"]["post"]
    content = post["requestBody"]["content"]["application/json"]
    assert set(content["schema"]["discriminator"]["mapping"]) == {"generate", "search", "relax", "evaluate"}
    for example in content["examples"].values():
        ask = example["value"]
        answer = served.post({**ask, "energy": None, "n": 1})
        assert answer.status == 202, answer.body
        assert served.over(answer.json["id"])["state"] == "done"


def test_a_cancelled_job_ends_at_once_and_keeps_what_it_has(served):
    slow = {"kind": "generate", "formula": "TiO2", "z": 2, "n": 64, "seed": 1, "energy": MORSE, "relax": True}
    job = served.post(slow).json["id"]
    for _, name, _ in served.events(job):
        if name == "crystal":
            break
    state = served.ask("DELETE", f"/api/v1/jobs/{job}").json
    assert state["state"] == "cancelled"
    assert 1 <= len(state["crystals"]) <= 64
    assert served.ask("DELETE", f"/api/v1/jobs/{job}").json["state"] == "cancelled"  # again does no harm
    assert served.done(RUTILE)["state"] == "done"


def test_jobs_wait_in_a_line_and_a_full_line_says_when_to_come_again(served):
    slow = {"kind": "generate", "formula": "TiO2", "z": 2, "n": 64, "energy": MORSE, "relax": True}
    answers = [served.post({**slow, "seed": seed}) for seed in range(10)]
    taken = [answer.json["id"] for answer in answers if answer.status == 202]
    refused = [answer for answer in answers if answer.status == 429]
    assert len(taken) + len(refused) == 10
    assert len(refused) >= 1
    for answer in refused:
        assert int(answer.headers["retry-after"]) >= 1
        assert "waiting already" in answer.error["message"]
    places = [served.get(f"/api/v1/jobs/{job}").json["position"] for job in taken]
    waiting = [place for place in places if place is not None]
    assert waiting == list(range(1, len(waiting) + 1))
    told = next(data for _, name, data in served.events(taken[-1]) if name == "position")
    assert told["position"] >= 1
    for job in reversed(taken):
        assert served.ask("DELETE", f"/api/v1/jobs/{job}").json["state"] == "cancelled"


def test_a_proxy_that_is_not_believed_is_told_of_once(served):
    forwarded = {"X-Forwarded-For": "192.0.2.7"}
    for _ in range(2):
        assert served.post({**RUTILE, "n": 1}, **forwarded).status == 202
    said = [line for line in served.log().splitlines() if "a proxy at 127.0.0.1 is not believed" in line]
    assert len(said) == 1
    assert "--behind-proxy" in said[0]


@pytest.fixture(scope="module")
def closed(parrot, tmp_path_factory):
    """A server with keys, a name, and one place of each kind for an address."""
    folder = tmp_path_factory.mktemp("closed")
    (folder / "keys").write_text("# of a laboratory\nsesame-sesame-sesame\n")
    limits = "--limits=per_address=1,streams_per_address=1,files=1"
    options = ("--keys", str(folder / "keys"), limits, "--hosts", "crystals.example")
    server = Served(parrot, folder / "out", *options)
    yield server
    server.end()


def test_a_server_with_keys_asks_for_one(closed):
    ask = {**RUTILE, "n": 1}
    for wrong in ({}, {"Authorization": "Bearer no"}, {"Authorization": "Basic sesame-sesame-sesame"}):
        answer = closed.post(ask, **wrong)
        assert answer.status == 401
        assert answer.headers["www-authenticate"] == "Bearer"
    assert closed.get("/metrics").status == 401
    assert closed.get("/").status == 200  # the page is no secret, and has a field for the key
    assert closed.get("/api/v1/about").json["keys"]
    assert closed.get("/api/v1/openapi.json").status == 200  # from which the reference is drawn
    key = {"Authorization": "Bearer sesame-sesame-sesame"}
    assert closed.post(ask, **key).status == 202


def test_an_address_has_so_many_jobs(closed):
    key = {"Authorization": "Bearer sesame-sesame-sesame"}
    slow = {**RUTILE, "n": 60, "energy": MORSE, "relax": True}
    deadline = time.monotonic() + 30
    while (first := closed.post(slow, **key)).status != 202 and time.monotonic() < deadline:
        time.sleep(0.2)
    second = closed.post(slow, **key)
    assert second.status == 429
    assert "of your address" in second.error["message"]
    closed.ask("DELETE", f"/api/v1/jobs/{first.json['id']}", headers=key)


def test_an_address_has_so_many_streams_and_files_are_made_a_few_at_a_time(closed):
    key = {"Authorization": "Bearer sesame-sesame-sesame"}
    slow = {**RUTILE, "n": 60, "energy": MORSE, "relax": True}
    deadline = time.monotonic() + 30
    while (first := closed.post(slow, **key)).status != 202 and time.monotonic() < deadline:
        time.sleep(0.2)
    job = f"/api/v1/jobs/{first.json['id']}"
    connection = http.client.HTTPConnection("127.0.0.1", closed.port, timeout=60)
    connection.request("GET", f"{job}/events", headers=key)
    assert connection.getresponse().status == 200
    second = closed.get(f"{job}/events", **key)
    assert second.status == 429
    assert "follow jobs" in second.error["message"]
    connection.close()
    while not closed.get(job, **key).json["crystals"] and time.monotonic() < deadline:
        time.sleep(0.2)
    statuses: list[int] = []
    threads = [
        threading.Thread(target=lambda: statuses.append(closed.get(f"{job}/archive", **key).status))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(statuses) == {200, 429}
    closed.ask("DELETE", job, headers=key)


@pytest.mark.parametrize(
    ("host", "status"), [("localhost:1", 200), ("crystals.example", 200), ("evil.example", 421)]
)
def test_a_server_answers_to_its_names(host, status, closed):
    assert closed.get("/healthz", Host=host).status == status


def test_every_answer_forbids_what_is_not_ours(served):
    paths = ("/", "/api.html", "/js/main.js", "/api/v1/about", "/nothing", "/healthz", "/api/v1/jobs/nothing")
    for path in paths:
        headers = served.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert "server" not in headers


def test_the_page_loads_nothing_from_elsewhere_and_holds_no_script(served):
    for path in ("/", "/api.html"):
        text = served.get(path).body.decode()
        assert not re.search(r"<script(?![^>]*\bsrc=)", text)
        assert not re.search(r"""(src|href)="(https?:)?//""", text)
        assert not re.search(r"\son\w+=|\sstyle=", text)
        for name in re.findall(r'(?:src|href)="((?:js|css|vendor)/[^"#]+|icon\.svg)"', text):
            assert served.get(f"/{name}").status == 200, name
    licence = served.get("/vendor/3Dmol-LICENSE.txt").body.decode()
    assert "Redistribution" in licence


def test_the_client_of_the_documentation_works(served):
    text = (Path(__file__).parents[2] / "docs" / "serve.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    program = program.replace("http://127.0.0.1:8000", served.address)
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert len(re.findall(r"^\d \S+ (?:True|False)$", said, re.MULTILINE)) == 8
    assert "_symmetry_space_group_name_H-M" in said


def test_two_servers_cannot_share_a_port(served, parrot, tmp_path):
    command = [
        sys.executable,
        "-m",
        "crystallm",
        "serve",
        "--port",
        str(served.port),
        "--models",
        str(parrot),
    ]
    run = subprocess.run(
        [*command, "--out", str(tmp_path / "out"), "--energies", "none"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 1
    assert f"cannot listen at 127.0.0.1:{served.port}" in run.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--limits", "samples=0"], "samples"),
        (["--limits", "crystals=3"], "unknown option"),
        (["--port", "70000"], "port = 70000"),
        (["--energies", "nothing"], "no energy model 'nothing'"),
        (["--models", "nowhere"], "nowhere"),
        (["--keys", "missing.txt"], "cannot be read"),
        (["--proxies", "proxy.example"], "'proxy.example' is no address"),
    ],
)
def test_a_wrong_option_is_one_line(options, message, tmp_path, monkeypatch, capsys):
    from crystallm.cli import app

    monkeypatch.chdir(tmp_path)
    assert app.run(["serve", *options]) in (1, 2)
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


def test_many_clients_share_the_engine(served):
    found = []

    def one(seed: int) -> None:
        for _ in range(40):
            answer = served.post({**RUTILE, "seed": seed, "n": 2})
            if answer.status == 202:
                found.append(served.over(answer.json["id"]))
                return
            assert answer.status == 429
            time.sleep(0.5)

    threads = [threading.Thread(target=one, args=(seed,)) for seed in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [state["state"] for state in found] == ["done"] * 12
    assert all(len(state["crystals"]) == 2 for state in found)
