from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from pyarrow import parquet
from pymatgen.core import Structure
from pymatgen.core.structure_matcher import StructureMatcher

from crystallm.cli import app
from killed import kill_after


@pytest.fixture
def crystallm(capsys, monkeypatch, tmp_path):
    """Runs a command in an empty folder: exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)
    # Verdicts in this process: a worker process takes seconds to start, and has tests of its own.
    from crystallm.validity import checks

    monkeypatch.setattr(checks, "check_many", lambda texts, **_: [checks.check(text) for text in texts])

    def run(*arguments):
        code = app.run([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def rows_of(folder):
    return parquet.read_table(Path(folder) / "results.parquet").to_pylist()


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*") if path.is_file())


# -- what a person asks for is what there is ----------------------------------------------------------------


def test_rutile_by_formula_z_and_group(crystallm, parrot, textbook_structures, tmp_path):
    code, out, err = crystallm(
        "generate", "TiO2", "--z", 2, "--space-group", "P4_2/mnm", "-n", 4, "--model", parrot, "--out", "out"
    )
    assert (code, err) == (0, "")
    rows = rows_of("out")
    assert [row["sample"] for row in rows] == [0, 1, 2, 3]
    assert {row["formula"] for row in rows} == {"Ti2O4"}
    assert files("out") == [*(f"cifs/{row['file']}" for row in rows), "results.parquet", "run.json"]
    best = next(row for row in rows if row["plausible"])
    assert (best["space_group"], best["space_group_number"], best["reduced_formula"]) == (
        "P4_2/mnm",
        136,
        "TiO2",
    )
    for text in (best["cif"], (tmp_path / "out" / "cifs" / best["file"]).read_text()):
        assert StructureMatcher().fit(Structure.from_str(text, fmt="cif"), textbook_structures["rutile"])
    assert "z = 2: cell Ti2O4 = 2 x TiO2, P4_2/mnm (no. 136)" in out
    assert re.search(r"Ti2O4 .* P4_2/mnm \(136\) .* 4\.\d\d 4\.\d\d 2\.\d\d .* plausible", out)
    assert "4 crystals" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("generate", "TiO2", "--z", "2.5"), "z = '2.5': write a whole number"),
        (("generate", "TiO2", "-n", "1.5"), "n = '1.5': write a whole number"),
        (("benchmark", "perov_5", "--limit", "2.5"), "limit = '2.5': write a whole number"),
        (
            ("train", "--max-updates", "1.5", "--dataset", "d", "--out", "o"),
            "max_updates = '1.5': write a whole number",
        ),
    ],
)
def test_a_fraction_of_what_is_whole_is_refused_not_rounded(crystallm, arguments, said):
    assert crystallm(*arguments) == (2, "", f"crystallm: {said}\n")


@pytest.mark.parametrize(
    ("place", "arguments", "said"),
    [
        (
            "cli.commands.train._run",
            ("train", "--dataset", "d", "--out", "o"),
            "; crystallm train --resume with the same",
        ),
        ("sources.collection.read", ("score", "c", "--out", "s.csv"), "\n"),
        ("pipelines.generate.run", ("generate", "TiO2"), "; with --out, the same command would resume\n"),
        ("pipelines.generate.run", ("generate", "TiO2", "--out=o"), "; the same command resumes\n"),
    ],
)
def test_who_interrupts_is_told_how_to_go_on(crystallm, monkeypatch, place, arguments, said):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(f"crystallm.{place}", interrupted)
    code, _, err = crystallm(*arguments)
    assert code == 130
    assert err.startswith(f"crystallm: interrupted{said}")


def test_a_list_in_the_place_of_a_formula_is_named(crystallm, tmp_path):
    (tmp_path / "list.csv").write_text("formula\nTiO2\n")
    code, _, err = crystallm("generate", "list.csv")
    assert (code, err) == (2, "crystallm: 'list.csv' is a file, not a formula: give it as --requests\n")


def test_one_word_too_many_is_named(crystallm):
    code, _, err = crystallm("generate", "TiO2", "SrTiO3")
    assert code == 2
    assert err.startswith("crystallm: 'SrTiO3' is more than the command takes; put many formulas into a file")
    assert "--requests" in err


def test_help_begins_with_generate_and_breaks_no_sentence(crystallm, monkeypatch):
    monkeypatch.setenv("COLUMNS", "70")
    _, out, _ = crystallm("--help")
    assert out.index("generate") < min(out.index(name) for name in ("benchmark", "cluster", "train"))
    _, out, _ = crystallm("generate", "--help")
    text = out[: out.index("Parameters")].splitlines()
    # A line ends where the next word has no place, not where one of the source ends.
    assert all(
        not after or not line or len(line) + 1 + len(after.split()[0]) > 70
        for line, after in itertools.pairwise(text)
    )


def test_without_out_nothing_is_written(crystallm, parrot, tmp_path):
    code, out, _ = crystallm("generate", "SrTiO3", "-n", 2, "--model", parrot)
    assert code == 0
    assert "SrTiO3" in out
    assert files(tmp_path) == []


def test_without_z_likely_cells_of_a_compound_are_written(crystallm, parrot, babbler):
    _, out, _ = crystallm("generate", "ZnS", "-n", 2, "--model", parrot)
    assert "ZnS, Z = 2 (100 %)" in out
    assert re.search(r"Zn2S2 +2 \(\d+ %\) +P6_3mc", out)
    for asked, note in (
        (["Zn2S2"], "cell as written: Zn2S2 = 2 x ZnS"),
        (["ZnS", "-z", 1], "z = 1: cell ZnS"),
    ):
        assert note in crystallm("generate", *asked, "-n", 1, "--model", parrot)[1]
    said = " ".join(crystallm("generate", "Cu", "-n", 1, "--model", babbler)[1].split())
    found = re.search(r"Cu, Z = (\d+) \([\d.]+ %\), .*; --z (\d+) generates cells of Cu(\d*) alone", said)
    assert found
    assert found[1] == found[2] == (found[3] or "1")
    assert re.search(r"; 1 sample is few for \d+ likely values of Z: give one of them, or more samples", said)


def test_a_run_begun_when_no_z_was_one_formula_unit_is_refused(crystallm, parrot, tmp_path):
    command = ("generate", "ZnS", "-n", 1, "--model", parrot, "--out", "out")
    assert crystallm(*command)[0] == 0
    asked = json.loads((tmp_path / "out/run.json").read_text())
    assert asked["requests"][0].pop("z") == "auto"
    (tmp_path / "out/run.json").write_text(json.dumps(asked))
    code, _, err = crystallm(*command)
    assert code == 2
    assert (
        'out holds another run (requests was [{"formula": "ZnS", "n": 1}], now [{"formula": "ZnS", "z"' in err
    )


def test_without_a_formula_the_network_chooses(crystallm, parrot):
    code, out, _ = crystallm("generate", "-n", 6, "--model", parrot, "--json")
    assert code == 0
    rows = [json.loads(line) for line in out.splitlines()]
    assert len(rows) == 6
    assert {row["formula"] for row in rows} & {"Na4Cl4", "Ti2O4", "SrTiO3", "Zn2S2", "C8"}


def test_any_beginning_of_a_text_can_be_a_prompt(crystallm, parrot):
    code, out, _ = crystallm(
        "generate", "--prompt", "<crystal> Na 4 Cl 4 (Fm-3m) Na 4a", "-n", 2, "--model", parrot, "--json"
    )
    assert code == 0
    for row in map(json.loads, out.splitlines()):
        assert (row["formula"], row["space_group"]) == ("Na4Cl4", "Fm-3m")


def test_the_same_seed_gives_the_same_crystals(crystallm, parrot):
    def texts(*more):
        command = ("generate", "ZnS", "--z", 2, "-n", 3, "--model", parrot, "--json", "--temperature", 3)
        code, out, _ = crystallm(*command, *more)
        assert code == 0
        return [json.loads(line)["text"] for line in out.splitlines()]

    first = texts()
    assert texts("--batch-size", 1) == first
    assert texts("--seed", 7) != first


@pytest.mark.parametrize("group", ["225", "Fm-3m", "F m -3 m"])
def test_a_space_group_is_a_number_or_a_symbol(crystallm, parrot, group):
    code, out, _ = crystallm("generate", "NaCl", "--z", 4, "--space-group", group, "-n", 1, "--model", parrot)
    assert code == 0
    assert "Fm-3m (no. 225)" in out


def test_z_and_group_may_be_left_to_the_networks_likelihood(crystallm, parrot):
    command = ("generate", "ZnS", "--z", "auto", "--space-group", "auto", "-n", 4, "--model", parrot)
    code, out, _ = crystallm(*command, "--out", "out")
    assert code == 0
    rows = rows_of("out")
    assert {row["z"] for row in rows} == {2}  # the only cell of ZnS that it has read
    assert all(0.5 < row["z_probability"] <= 1 and 0 < row["space_group_probability"] <= 1 for row in rows)
    assert [row["requested_z"] for row in rows] == [None] * 4
    said = " ".join(out.split())
    assert re.search(r"ZnS, Z = 2 \(\d+ %\).*space group = auto: P6_3mc \(\d+ %\)", said)
    assert re.search(r"Zn2S2 +2 \(\d+ %\) +P6_3mc", out)
    assert crystallm(*command, "--out", "out")[1] == out


@pytest.mark.usefixtures("inline")
def test_writing_goes_on_until_enough_are_valid_and_all_is_kept(crystallm, parrot):
    hot = ("--model", parrot, "--temperature", 5, "--top-k", "none", "--seed", 4)
    command = ("generate", "ZnS", "--z", 2, "-n", 4, "--only-valid", "--max-attempts", 60, *hot)
    code, out, _ = crystallm(*command, "--out", "out")
    assert code == 0
    rows = rows_of("out")
    plausible = [row for row in rows if row["plausible"]]
    assert len(plausible) == 4
    assert len(rows) > 4
    assert rows[-1]["plausible"]
    assert sorted(row["file"] for row in rows if row["file"]) == sorted(row["file"] for row in plausible)
    assert [name for name in files("out") if name.startswith("cifs/")] == sorted(
        f"cifs/{row['file']}" for row in plausible
    )
    assert f"{len(rows)} crystals, 4 plausible ({4 / len(rows):.0%}), 4 kept" in out
    code, printed, _ = crystallm(*command, "--out", "out", "--json")
    assert [json.loads(line)["text"] for line in printed.splitlines()] == [row["text"] for row in plausible]


@pytest.mark.usefixtures("inline")
def test_a_run_for_valid_crystals_that_is_killed_goes_on(crystallm, parrot, tmp_path, monkeypatch):
    (tmp_path / "list.csv").write_text("formula,z,n\nZnS,2,2\nTiO2,auto,2\nNaCl,4,1\n")
    hot = ("--model", parrot, "--temperature", 3)
    command = ("generate", "--requests", "list.csv", "--only-valid", "--quiet", *hot)
    monkeypatch.setattr("crystallm.pipelines.blocks.BLOCK", 1)
    monkeypatch.setattr("crystallm.pipelines.samples.BATCH", 1)
    monkeypatch.setattr("crystallm.generation.generator.CHECKED_TOGETHER", 1)
    assert crystallm(*command, "--out", "whole")[0] == 0

    from crystallm.storage import run_folder

    write_unit = run_folder.RunFolder.write_unit

    def dies_at_the_second(self, unit, *more):
        if unit == 1:
            raise KeyboardInterrupt
        write_unit(self, unit, *more)

    monkeypatch.setattr(run_folder.RunFolder, "write_unit", dies_at_the_second)
    assert crystallm(*command, "--out", "killed")[0] == 130
    monkeypatch.setattr(run_folder.RunFolder, "write_unit", write_unit)
    assert crystallm(*command, "--out", "killed")[0] == 0
    assert rows_of("killed") == rows_of("whole")
    assert files("killed") == files("whole")


def test_the_best_distinct_ones_are_kept(crystallm, parrot, inline):
    hot = ("--model", parrot, "--temperature", 3, "--top-k", "none", "--seed", 3)
    code, out, _ = crystallm("generate", "ZnS", "--z", 2, "-n", 6, "--best", 2, *hot, "--out", "out")
    assert code == 0
    rows = rows_of("out")
    assert len(rows) == 6
    best = sorted((row for row in rows if row["file"]), key=lambda row: row["rank"])
    assert [row["rank"] for row in best] == list(range(1, len(best) + 1))
    assert best[0]["cluster_size"] == max(row["cluster_size"] for row in rows if row["plausible"])
    assert f"×{best[0]['cluster_size']}" in out
    assert f"{len(best)} kept" in out
    code, printed, _ = crystallm("generate", "ZnS", "--z", 2, "-n", 6, "--best", 1, *hot, "--json")
    (line,) = printed.splitlines()
    assert json.loads(line)["text"] == best[0]["text"]


def test_quiet_prints_nothing(crystallm, parrot):
    assert crystallm("generate", "C8", "-n", 1, "--model", parrot, "--quiet") == (0, "", "")


def test_models_lists_what_there_is(crystallm, parrot, monkeypatch):
    from crystallm.models import load

    monkeypatch.setattr(load, "WEIGHTS", parrot.parent)
    code, out, _ = crystallm("models")
    assert code == 0
    assert re.search(r"parrot .* orbits .* 0\.\d M .* 128 .* five crystals of a textbook", out)


# -- many requests, runs that are killed --------------------------------------------------------------------

REQUESTS = "formula,z,space_group,n\nNaCl,4,Fm-3m,2\nTiO2,2,,\nSrTiO3,1,221,1\n"


def test_elements_and_a_group_stand_in_the_results(crystallm, parrot):
    asked = ("--elements", "O-Ti", "--space-group", 136)
    code, out, _ = crystallm("generate", *asked, "-n", 3, "--out", "out", "--model", parrot)
    assert code == 0
    assert "elements Ti-O, P4_2/mnm (no. 136): the network chooses the formula" in out
    rows = rows_of("out")
    told = {
        (row["requested_elements"], row["requested_space_group"], row["requested_formula"]) for row in rows
    }
    assert told == {("O-Ti", "136", None)}
    assert {(row["formula"], row["space_group"]) for row in rows} == {("Ti2O4", "P4_2/mnm")}
    assert all(row["file"].startswith("Ti2O4-sg136-") for row in rows)


def test_a_list_of_systems_and_formulas_gives_one_table(crystallm, parrot, tmp_path):
    (tmp_path / "list.csv").write_text("formula,elements,n\nNa4Cl4,,1\n,Ti-O,2\n,Na-Cl,1\n")
    code, _, _ = crystallm("generate", "--requests", "list.csv", "--out", "out", "--model", parrot)
    assert code == 0
    rows = rows_of("out")
    assert [row["requested_elements"] for row in rows] == [None, "Ti-O", "Ti-O", "Na-Cl"]
    assert [row["requested_formula"] for row in rows] == ["Na4Cl4", None, None, None]


def test_a_file_of_requests_gives_one_table(crystallm, parrot, tmp_path):
    (tmp_path / "list.csv").write_text(REQUESTS)
    code, out, _ = crystallm("generate", "--requests", "list.csv", "-n", 3, "--out", "out", "--model", parrot)
    assert code == 0
    rows = rows_of("out")
    assert [(row["request"], row["sample"]) for row in rows] == [
        (0, 0),
        (0, 1),
        (1, 0),
        (1, 1),
        (1, 2),
        (2, 0),
    ]
    assert [row["requested_formula"] for row in rows] == ["NaCl"] * 2 + ["TiO2"] * 3 + ["SrTiO3"]
    assert len({row["file"] for row in rows}) == 6
    assert "6 crystals" in out


def test_a_request_does_not_depend_on_the_others_that_are_done_with_it(crystallm, parrot, tmp_path):
    from crystallm.generation.generator import Generator
    from crystallm.generation.request import Request, SamplingOptions
    from crystallm.models.load import load_model

    requests = [Request(formula=formula, n=2) for formula in ("Na4Cl4", "Ti2O4", "Zn2S2")]
    generator = Generator(load_model(parrot), requests, SamplingOptions())
    together = {
        unit: [c.ids for c in found]
        for unit, found in zip(range(3), generator.generate([0, 1, 2]), strict=True)
    }
    for unit in range(3):
        (alone,) = generator.generate([unit])
        assert [crystal.ids for crystal in alone] == together[unit]


@pytest.mark.usefixtures("inline")
def test_a_killed_run_started_again_ends_with_the_same_rows(crystallm, parrot, tmp_path, monkeypatch):
    (tmp_path / "list.csv").write_text(REQUESTS)
    command = ("generate", "--requests", "list.csv", "-n", 3, "--model", parrot, "--quiet")
    monkeypatch.setattr("crystallm.pipelines.blocks.BLOCK", 2)
    assert crystallm(*command, "--out", "whole")[0] == 0

    from crystallm.storage import run_folder

    write_unit, calls = run_folder.RunFolder.write_unit, []

    def dies_at_the_second(self, unit, *more):
        calls.append(unit)
        if len(calls) == 2:
            raise KeyboardInterrupt
        write_unit(self, unit, *more)

    monkeypatch.setattr(run_folder.RunFolder, "write_unit", dies_at_the_second)
    code, _, err = crystallm(*command, "--out", "killed")
    assert code == 130
    assert err == "crystallm: interrupted; the same command resumes\n"
    assert "results.parquet" not in files("killed")
    monkeypatch.setattr(run_folder.RunFolder, "write_unit", write_unit)
    assert crystallm(*command, "--out", "killed")[0] == 0
    assert calls == [0, 1]
    assert rows_of("killed") == rows_of("whole")
    assert files("killed") == files("whole")


@pytest.mark.usefixtures("inline")
def test_a_process_killed_in_the_middle_leaves_a_folder_that_can_go_on(
    crystallm, parrot, tmp_path, monkeypatch
):
    (tmp_path / "list.csv").write_text("formula\n" + "Na4Cl4\n" * 4)
    command = ["generate", "--requests", "list.csv", "-n", "1", "--out", "out", "--model", str(parrot)]
    patches = "from crystallm.pipelines import blocks; blocks.BLOCK = 1"
    parts = tmp_path / "out" / "parts"
    done = kill_after(2, command, parts, at_most=2, patches=patches, cwd=tmp_path)
    assert [path.name for path in done] == ["00000.parquet", "00001.parquet"]
    monkeypatch.setattr("crystallm.pipelines.blocks.BLOCK", 1)
    code, _, err = crystallm(*command)
    assert (code, err) == (0, "")
    assert [row["request"] for row in rows_of("out")] == list(range(4))


def test_a_finished_run_is_shown_again_and_another_one_refused(crystallm, parrot):
    command = ("generate", "TiO2", "--z", 2, "-n", 2, "--model", parrot, "--out", "out")
    first = crystallm(*command)
    assert first[0] == 0
    assert crystallm(*command) == first
    code, out, err = crystallm(*command, "--temperature", 0.5)
    assert (code, out) == (2, "")
    assert "out holds another run (temperature was 1.0, now 0.5)" in err


# -- options from a file ------------------------------------------------------------------------------------


def test_options_come_from_a_file_and_the_command_line_wins(crystallm, parrot, tmp_path):
    (tmp_path / "run.yaml").write_text(
        f"formula: TiO2\nz: 2\nn: 3\nspace-group: 136\nmodel: {parrot}\nout: out\n"
    )
    assert crystallm("generate", "--config", "run.yaml", "-n", 1)[0] == 0
    (row,) = rows_of("out")
    assert (row["requested_formula"], row["requested_z"], row["requested_space_group"]) == ("TiO2", 2, "136")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("temprature: 1", "unknown option 'temprature': did you mean temperature?"),
        ("n: many", "n = 'many': write a whole number"),
        ("- 1", "must hold names and values"),
        ("a: [", "is no YAML"),
    ],
)
def test_a_broken_config_is_one_line(crystallm, tmp_path, text, says):
    (tmp_path / "run.yaml").write_text(text)
    code, out, err = crystallm("generate", "--config", "run.yaml")
    assert (code, out) == (2, "")
    assert says in err
    assert err.count("\n") == 1


# -- bad input: one line, the right exit code, nothing written


@pytest.mark.parametrize(
    ("arguments", "expected", "says"),
    [
        (["XyO2"], 2, "Xy is not an element"),
        (["PoO2"], 2, "Po (Z = 84) has no token"),
        ([""], 2, "the formula is empty"),
        (["tio2"], 2, "did you mean TiO2?"),
        (["Ti0"], 2, "0 atoms"),
        (["Ti1000000000"], 2, "1000000000 atoms are more than a cell may hold"),
        (["TiO2", "--z", "1000000000"], 2, "at most 2000"),
        (["TiO2", "--z", "0"], 2, "z = 0 formula units"),
        (["TiO2", "--z", "two"], 2, "z = 'two'"),
        (["TiO2", "--space-group", "231"], 2, "no space group 231"),
        (["TiO2", "--space-group", "P4_2/mnx"], 2, "near: P4_2/mnm"),
        (["TiO2", "--space-group", "F" * 5000], 2, "no space group"),
        (["--z", "2"], 2, "without a formula"),
        (["--space-group", "auto"], 2, "'auto' without a formula: leave it out"),
        (["--space-group", "225", "--constraints", "none"], 2, "takes the rules: leave constraints at full"),
        (["--elements", "Li-Po"], 2, "Po (Z = 84) has no token"),
        (["--elements", "Li2O"], 2, "has counts or brackets"),
        (["TiO2", "--elements", "Ti-O"], 2, "give one or the other"),
        (
            ["--elements", "Ti-O", "--requests", "list.csv"],
            2,
            "--requests and elements: give one or the other",
        ),
        (["--allow-fewer-elements"], 2, "allow_fewer_elements without elements"),
        (["--elements", "Ti-O", "--template", "file.txt"], 2, "--template takes a formula, not elements"),
        (["TiO2", "--prompt", "x"], 2, "give one or the other"),
        (["--prompt", ""], 2, "the prompt is empty"),
        (["--prompt", "no such words"], 2, "'no' is not a token"),
        (["--prompt", "<crystal> " + "C " * 200], 2, "has 201 tokens, and the context"),
        (["TiO2", "-n", "0"], 2, "n = '0'"),
        (["TiO2", "-n", "1000000000"], 2, "n = '1000000000'"),
        (["TiO2", "--temperature", "-1"], 2, "temperature"),
        (["TiO2", "--top-p", "2"], 2, "top_p"),
        (["TiO2", "--seed", "-1"], 2, "seed"),
        (["TiO2", "--constraints", "some"], 2, "constraints"),
        (["TiO2", "--z", "1", "--space-group", "Fm-3m"], 2, "cannot fill Fm-3m (#225)"),
        (["TiO2", "--z", "3", "--space-group", "Fm-3m"], 2, "3 formula units of TiO2 cannot fill"),
        (["Ti2O4", "--space-group", "Fm-3m"], 2, "Z = 4, 12, 16 can"),
        (["NaClBrI", "--space-group", "Ia-3d"], 2, "no 24 or fewer formula units of"),
        (["NaClBrI", "--z", "auto", "--space-group", "Ia-3d"], 2, "no 24 or fewer formula units of"),
        (["--z", "auto"], 2, "without a formula"),
        (["TiO2", "--max-attempts", "5"], 2, "max_attempts = 5 without only_valid"),
        (["TiO2", "--best", "0"], 2, "best = '0'"),
        (["TiO2", "--rank", "beauty"], 2, "rank = 'beauty'"),
        (["--prompt", "<crystal> Na 4 Na"], 2, "the prompt breaks the grammar: 'Na' is not allowed here"),
        (["TiO2", "--no-such-option"], 2, "no-such-option"),
        (["TiO2", "NaCl"], 2, "NaCl"),
        (["TiO2", "--model", "nowhere"], 1, "no model 'nowhere'"),
        (["TiO2", "--model", "foreign.pt"], 1, "foreign.pt"),
        (["TiO2", "--out", "file.txt"], 1, "'file.txt' is a file"),
        (["TiO2", "--out", "/proc/nowhere"], 1, "cannot be written"),
        (["TiO2", "--config", "missing.yaml"], 1, "missing.yaml cannot be read"),
        (["--requests", "missing.csv", "--out", "out"], 1, "missing.csv cannot be read"),
        (["--requests", "list.csv"], 2, "--requests needs --out"),
        (["NaCl", "--requests", "list.csv", "--out", "out"], 2, "give one or the other"),
        (["--requests", "file.csv", "--out", "out"], 2, "must name the columns"),
        (["--requests", "file.txt", "--out", "out"], 2, "file.txt, line 1: 'nothing' is not a formula"),
        (["TiO2", "--workers", "0"], 2, "workers = '0'"),
        (["TiO2", "--workers", "2", "--cluster", "tcp://x:1"], 2, "--cluster and --workers"),
        (["TiO2", "--threads", "0"], 2, "threads = '0'"),
        (["TiO2", "--threads", "2", "--workers", "2"], 2, "threads = 2 are those of this process"),
        (["TiO2", "--device", "cpu,cpu"], 2, "write each once"),
        (["TiO2", "--device", "cuda:0,cuda:1", "--workers", "1"], 2, "workers = 1 for 2 devices"),
        (["--requests", "list.csv", "--out", "out"], 2, "list.csv, line 3: 'Xx': Xx is not an element"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(crystallm, parrot, tmp_path, arguments, expected, says):
    for name in ("file.csv", "file.txt"):
        (tmp_path / name).write_text("nothing\n")
    (tmp_path / "foreign.pt").write_bytes(b"\x80\x04no weights")
    (tmp_path / "list.csv").write_text("formula,n\nNaCl,1\nXx,1\n")
    before = files(tmp_path)
    if "--model" not in arguments:
        arguments = [*arguments, "--model", parrot]
    if "--out" not in arguments and "--requests" not in arguments:
        arguments = [*arguments, "--out", "out"]
    code, out, err = crystallm("generate", *arguments)
    assert (code, out) == (expected, ""), err
    assert says in err
    assert err.startswith("crystallm: ")
    assert err.count("\n") == 1
    assert files(tmp_path) == before
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "must name the columns"),
        ("formula\n", "holds no request"),
        ("formula,colour\nNaCl,red\n", "must name the columns"),
        ("formula,n\nNaCl,1,2\n", "line 2: more values than columns"),
        ("formula,n\nNaCl,x\n", "line 2: n = 'x'"),
        ("formula,n\n,1\n", "line 2: no formula"),
        ("formula,space_group\nNaCl,Fm7\n", "line 2: no space group 'Fm7'"),
        ("formula,z\nTiO2,two\n", "line 2: z = 'two'"),
        ("formula,z,space_group\nTiO2,auto,auto\nTiO2,3,225\n", "line 3: 3 formula units of TiO2 cannot"),
        ("formula\n\xff\n", "is no CSV file in UTF-8"),
    ],
)
def test_a_broken_list_is_one_line(crystallm, tmp_path, text, says):
    (tmp_path / "list.csv").write_bytes(text.encode("latin-1"))
    code, out, err = crystallm("generate", "--requests", "list.csv", "--out", "out")
    assert (code, out) == (2, "")
    assert says in err
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_bug_is_one_line_too(crystallm, monkeypatch):
    monkeypatch.setattr("crystallm.pipelines.generate.run", lambda *_, **__: 1 / 0)
    code, _, err = crystallm("generate", "TiO2")
    assert code == 1
    assert err.startswith("crystallm: internal error, ZeroDivisionError: division by zero")
    assert err.count("\n") == 1


def test_a_place_that_the_system_refuses_is_named(crystallm):
    code, _, err = crystallm("generate", "TiO2", "-n", 1, "--out", "x" * 300)
    assert code == 1
    assert re.fullmatch(r"crystallm: 'x{100,}\.*': File name too long\n", err)


# -- the program --------------------------------------------------------------------------------------------


def test_help_and_version_are_answered_without_heavy_libraries():
    script = (
        "import sys\nfrom crystallm.cli import app as cli\n"
        "for command in ([], ['generate'], ['models']): assert cli.run([*command, '--help']) == 0\n"
        "assert cli.run(['--version']) == 0\n"
        "heavy = {'torch', 'pymatgen', 'pyarrow', 'numpy', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for word in ("generate", "models", "--space-group", "--seed", "--config"):
        assert word in done.stdout


def test_output_into_a_closed_pipe_is_no_error(crystallm, parrot, monkeypatch):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as closed:
        monkeypatch.setattr(sys, "stdout", closed)
        code, _, err = crystallm("generate", "C8", "-n", "1", "--model", parrot)
    assert (code, err) == (0, "")


@pytest.mark.parametrize("command", [("search", "TiO2"), ("complete", "a.cif"), ("solve", "a.xy")])
@pytest.mark.parametrize("option", ["--condition", "--guidance"])
def test_conditions_are_rejected_where_they_do_nothing(crystallm, command, option):
    code, out, err = crystallm(*command, option, "density=5")
    assert (code, out) == (2, "")
    assert re.match(rf"crystallm: {option} is an option of .*generate and benchmark condition alone: ", err)
