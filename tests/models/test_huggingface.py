"""Models in Hugging Face's form: the same network, the same tokens, there and back."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import io
import json
import shutil
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import safetensors.torch
import torch

from crystallm import language
from crystallm.cif import tokenizer
from crystallm.cli import app
from crystallm.errors import CheckpointError, CrystallmError, InputError
from crystallm.models import download, hub, huggingface, huggingface_tokenizer, load, model_card
from crystallm.models import folder as models_folder
from crystallm.models.model import Model
from crystallm.network.config import ModelConfig
from crystallm.network.transformer import GPT
from crystallm.sampling import sample as sampling_sample
from crystallm.sampling import sequence
from real_crystals import published as texts

with_tokenizers = pytest.mark.skipif(
    importlib.util.find_spec("tokenizers") is None, reason="tokenizers is not installed"
)
with_transformers = pytest.mark.skipif(
    importlib.util.find_spec("transformers") is None, reason="transformers is not installed"
)
FORMS = [("orbits", "llama", False), ("orbits", "gpt2", False), ("cif", "gpt2", False), ("cif", "gpt2", True)]
GOLDEN = Path(__file__).parents[1] / "golden"


def random_model(name, form, bias=False):
    """A network whose weights, biases and norms are all far from where networks begin."""
    tongue = language.get_language(name)
    config = ModelConfig(
        language=name,
        form=form,
        vocab_size=len(tongue.vocabulary()),
        context=96,
        n_layer=2,
        n_head=2,
        n_embd=24,
        bias=bias,
    )
    torch.manual_seed(5)
    network = GPT(config).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
        network.transformer.wte.weight.mul_(6)  # likeliest tokens are far ahead of the next: no ties
    return Model("random", network, tongue, config, {"summary": "random", "data": [{"name": "none"}]})


@pytest.fixture(scope="module", params=FORMS, ids=lambda form: "-".join(map(str, form)))
def pair(request, tmp_path_factory):
    model = random_model(*request.param)
    return model, huggingface.write(model, tmp_path_factory.mktemp("hf") / "model")


def test_a_network_comes_back_as_it_was(pair, tmp_path):
    model, folder = pair
    again = load.load_model(folder, device="cpu")
    assert again.config == model.config
    assert again.card == model.card
    before = dict(model.network.named_parameters())
    for name, parameter in again.network.named_parameters():
        assert torch.equal(parameter, before[name]), name
    assert load.language_of(folder) == model.language.name
    # Without our part of the config, as where others have made it: the same but for what only we know.
    bare = tmp_path / "bare"
    shutil.copytree(folder, bare)
    content = json.loads((bare / "config.json").read_text())
    del content["crystallm"]
    (bare / "config.json").write_text(json.dumps(content))
    assert load.load_model(bare, device="cpu").config == model.config


@with_transformers
def test_transformers_writes_the_same_tokens_greedily(pair):
    """20 prompts, token for token, with the network and the tokenizer that transformers makes of it."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, folder = pair
    network = AutoModelForCausalLM.from_pretrained(folder).eval()
    kind = {"gpt2": "GPT2LMHeadModel", "llama": "LlamaForCausalLM"}[model.config.form]
    assert type(network).__name__ == kind
    written = AutoTokenizer.from_pretrained(folder)
    compositions = [[(metal, n), ("O", 2 * n)] for n in range(1, 11) for metal in ("Na", "Ti")]
    # The end of the published language is two tokens, at which transformers does not stop.
    end = model.language.end_ids if model.language.name == "orbits" else (-1,)
    prompts = [model.language.prompt(composition) for composition in compositions]
    samples = sampling_sample.sample(
        model.network, prompts, stop=sequence.Stop(end), temperature=0, top_k=None, max_new_tokens=40
    )
    for prompt, sample in zip(prompts, samples, strict=True):
        ids = written(model.language.text(prompt), return_tensors="pt", add_special_tokens=False).input_ids
        assert ids[0].tolist() == list(prompt)
        with torch.no_grad():
            found = network.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                do_sample=False,
                max_new_tokens=40,
                pad_token_id=0,
            )
        assert found[0].tolist() == list(sample.ids)
    logits = network(torch.tensor([prompts[0]])).logits
    assert torch.allclose(logits, model.network(torch.tensor([prompts[0]])), atol=1e-4)


def fast(name):
    from tokenizers import Tokenizer

    return Tokenizer.from_str(json.dumps(huggingface_tokenizer.content(language.get_language(name))))


@with_tokenizers
def test_the_tokenizer_of_the_published_language_is_ours():
    there = fast("cif")
    for row in texts():
        ids = there.encode(row["text"], add_special_tokens=False).ids
        assert ids == tokenizer.encode(row["text"])
        assert there.decode(ids, skip_special_tokens=False) == tokenizer.decode(ids)
    head = "_symmetry_space_group_name_H-M"
    symbols = ("Pm\nPm Pm1 2", "P4_222\n", " Fm-3m \n", "'Fm-3m'\n", "\n", " \n")
    lines = [f"{head} {symbol}" for symbol in symbols]
    strange = ["data_Xx4 foo ü ?\t\t_cell_length_a   4.5", "Pm", "", "\n\n", "<unk>", f"x{head} P6", head]
    for odd in (*lines, *strange):
        assert there.encode(odd, add_special_tokens=False).ids == tokenizer.encode(odd), odd


@with_tokenizers
def test_the_tokenizer_of_our_language_is_ours():
    tongue, there = language.get_language("orbits"), fast("orbits")
    for row in texts()[:40]:
        from crystallm.sources import parsing

        ids = tongue.encode(parsing.structure(row["cif"]))
        text = tongue.text(ids)
        assert there.encode(text, add_special_tokens=False).ids == ids
        assert there.encode(text.replace(" ", "\n"), add_special_tokens=False).ids == ids
        assert there.decode(ids, skip_special_tokens=False) == text
    every = list(range(len(tongue.vocabulary())))
    assert there.encode(tongue.text(every), add_special_tokens=False).ids == every
    with pytest.raises(Exception, match="UNK"):
        there.encode("<crystal> Xx 3")


def test_the_published_golden_weights_go_there_and_back(tmp_path):
    golden = load.load_model(GOLDEN / "checkpoint_bias" / "ckpt.pt", device="cpu")
    folder = huggingface.write(golden, tmp_path / "hf")
    place = str(tmp_path / "back")
    assert app.run(["convert", str(folder), "--to", "safetensors", "--out", place, "--quiet"]) == 0
    back = load.load_model(place, device="cpu")
    ids = torch.arange(20)[None]
    assert torch.equal(back.network(ids), golden.network(ids))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model_type": "opt"}, "neither gpt2 nor llama"),
        ({"num_key_value_heads": 1}, "num_key_value_heads is 1"),
        ({"rope_theta": 5e5}, "rope_theta is 500000.0"),
        ({"vocab_size": 7, "crystallm": {"language": "klingon"}}, "no language 'klingon'"),
        ({"num_hidden_layers": 3}, "lacks 'model.layers.2"),
    ],
)
def test_foreign_networks_are_refused(tmp_path, change, said):
    folder = huggingface.write(random_model("orbits", "llama"), tmp_path / "m")
    content = json.loads((folder / "config.json").read_text()) | change
    (folder / "config.json").write_text(json.dumps(content))
    with pytest.raises(CrystallmError, match=said):
        load.load_model(folder, device="cpu")


def test_damaged_folders_are_refused(tmp_path):
    model = random_model("orbits", "gpt2")
    folder = huggingface.write(model, tmp_path / "m")
    with pytest.raises(CheckpointError, match="exists"):
        huggingface.write(model, folder)
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(CheckpointError, match="damaged"):
        load.load_model(folder)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="pickled weights are not read"):
        load.load_model(folder)


def test_a_card_says_what_is_known_and_what_is_not():
    text = model_card.markdown(load.load_model("default", device="cpu"), "org/crystals")
    head = text.split("---")[1]
    assert "library_name: crystallm" in head
    assert 'load_model("hf:org/crystals")' in text
    assert "| Alexandria | 2238 | CC-BY-4.0 |" in text
    assert "0.506" in text
    bare = model_card.markdown(random_model("cif", "gpt2"))
    assert bare.count("Not told.") == 5


# --- a Hub, and a record of files, on this machine ---


class Shelf(BaseHTTPRequestHandler):
    """Answers as the Hub and Zenodo do, from dicts of the server."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def _answer(self, code, content=b"", **headers):
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _json(self, content, code=200):
        self._answer(code, json.dumps(content).encode(), Content_Type="application/json")

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        hold, path = self.server.files, self.path.split("?")[0]
        self.server.asked.append((path, self.headers.get("Range")))
        if path == "/record":
            self._json(self.server.record)
        elif path.startswith("/api/models/org/crystals/tree/"):
            self._json(
                [{"type": "file", "path": n, "size": len(c), "oid": "b" * 40} for n, c in hold.items()]
            )
        elif path.startswith("/api/models/org/crystals"):
            names = [{"rfilename": name} for name in hold]
            self._json({"id": "org/crystals", "sha": "a" * 40, "siblings": names, "private": False})
        elif "/resolve/" in path and path.rsplit("/", maxsplit=1)[-1] in hold:
            content = hold[path.rsplit("/", maxsplit=1)[-1]]
            tag = hashlib.sha256(content).hexdigest()
            self._answer(200, content, ETag=f'"{tag}"', X_Repo_Commit="a" * 40)
        elif path.startswith("/files/"):
            content = hold[path[7:]]
            start = int((self.headers.get("Range") or "bytes=0-")[6:-1])
            cut = self.server.cut.pop(0) if self.server.cut else len(content)
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            self.wfile.write(content[start : max(start, cut)])
            self.close_connection = True
        else:
            self._json({"error": "not here"}, 404)

    def do_POST(self):
        content = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append((self.path, None))
        if self.path.endswith("/repos/create"):
            self._json({"url": f"{self.server.address}/org/new", "name": "org/new"})
        elif "/preupload/" in self.path:
            files = json.loads(content)["files"]
            told = [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files]
            self._json({"files": told})
        elif "/commit/" in self.path:
            for line in content.splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    self.server.pushed[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
            address = f"{self.server.address}/org/new/commit/{'1' * 40}"
            told = {"commitUrl": address, "commitOid": "1" * 40, "commitMessage": "m"}
            self._json(told | {"hookOutput": "", "success": True})
        else:
            self._json({}, 200)


@pytest.fixture
def shelf(monkeypatch, tmp_path):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Shelf)
    server.files, server.asked, server.pushed, server.cut, server.record = {}, [], {}, [], {}
    server.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", server.address)
    monkeypatch.setenv("CRYSTALLM_CACHE", str(tmp_path / "cache"))
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_model_is_fetched_from_the_hub(shelf, tmp_path):
    model = random_model("orbits", "llama")
    folder = huggingface.write(model, tmp_path / "m")
    shelf.files |= {path.name: path.read_bytes() for path in folder.iterdir()}
    shelf.files["pytorch_model.bin"] = b"a pickle"
    found = load.load_model("hf:org/crystals", device="cpu")
    assert found.name == "hf:org/crystals"
    ids = torch.arange(10)[None]
    assert torch.equal(found.network(ids), model.network(ids))
    assert not any("pytorch_model.bin" in path for path, _ in shelf.asked)
    for name, error, said in (
        ("hf:org/other", CheckpointError, "org/other cannot be fetched from the Hub"),
        ("hf:crystals", InputError, "write hf:org/name"),
        ("hf:../../x/y", InputError, "write hf:org/name"),
    ):
        with pytest.raises(error, match=said):
            load.load_model(name)


def test_a_model_is_pushed_with_its_card(shelf, tmp_path):
    model = random_model("cif", "gpt2")
    assert hub.push(model, "org/new", token="hf_none") == f"{shelf.address}/org/new"  # noqa: S106 - of the stub
    assert {"config.json", "model.safetensors", "tokenizer.json", "README.md"} <= set(shelf.pushed)
    assert "# new" in shelf.pushed["README.md"].decode()
    assert 'load_model("hf:org/new")' in shelf.pushed["README.md"].decode()
    (tmp_path / "again").mkdir()
    for name, content in shelf.pushed.items():
        (tmp_path / "again" / name).write_bytes(content)
    assert load.load_model(tmp_path / "again", device="cpu").config == model.config
    with pytest.raises(InputError, match="write org/name"):
        hub.push(model, "new")


def archive(content: bytes, name="crystallm_v1_small/ckpt.pt") -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as file:
        for member, text in ((f"{name.split('/', maxsplit=1)[0]}/notes.txt", b"x"), (name, content)):
            info = tarfile.TarInfo(member)
            info.size = len(text)
            file.addfile(info, io.BytesIO(text))
    return packed.getvalue()


@pytest.fixture
def published_file(shelf):
    packed = archive((GOLDEN / "checkpoint_nobias" / "ckpt.pt").read_bytes())
    shelf.files["small"] = packed
    shelf.record |= {
        "files": [
            {
                "key": "crystallm_v1_small.tar.gz",
                "size": len(packed),
                "checksum": f"md5:{hashlib.md5(packed, usedforsecurity=False).hexdigest()}",
                "links": {"self": f"{shelf.address}/files/small"},
            }
        ]
    }
    return packed


def test_a_published_model_is_fetched_checked_and_loaded_by_its_name(shelf, published_file):
    with pytest.raises(CheckpointError, match="crystallm models --fetch crystallm_v1_small"):
        load.load_model("crystallm_v1_small")
    shelf.cut = [len(published_file) // 3, 2 * len(published_file) // 3]
    record = f"{shelf.address}/record"
    seen = []
    for _ in range(2):  # the connection breaks off twice
        with pytest.raises(CrystallmError, match="goes on from here"):
            download.fetch("crystallm_v1_small", record=record)
        assert not download.path("crystallm_v1_small").exists()
    found = download.fetch("crystallm_v1_small", record=record, progress=lambda *told: seen.append(told))
    assert found.read_bytes() == published_file
    assert seen[-1] == (len(published_file), len(published_file))
    ranges = [asked for path, asked in shelf.asked if path == "/files/small"]
    assert ranges == [None, f"bytes={len(published_file) // 3}-", f"bytes={2 * len(published_file) // 3}-"]
    n_asked = len(shelf.asked)
    assert download.fetch("crystallm_v1_small", record=record) == found  # it is here: nobody is asked
    assert len(shelf.asked) == n_asked
    model = load.load_model("crystallm_v1_small", device="cpu")
    assert model.name == "crystallm_v1_small"
    assert model.language.name == "cif"
    golden = load.load_model(GOLDEN / "checkpoint_nobias" / "ckpt.pt", device="cpu")
    ids = torch.arange(12)[None]
    assert torch.equal(model.network(ids), golden.network(ids))


def test_a_file_with_another_sum_is_thrown_away(shelf, published_file):
    shelf.record["files"][0]["checksum"] = "md5:" + "0" * 32
    with pytest.raises(CrystallmError, match="the record says"):
        download.fetch("crystallm_v1_small", record=f"{shelf.address}/record")
    assert not list(download.folder().iterdir())
    for record, said in (
        ({"files": []}, "tells nothing of crystallm_v1_small"),
        ({"files": [shelf.record["files"][0] | {"checksum": "sha1:00"}]}, "no MD5 sum"),
        ({"files": [shelf.record["files"][0] | {"links": {"self": "file:///etc/passwd"}}]}, "no address"),
    ):
        shelf.record = record
        with pytest.raises(CrystallmError, match=said):
            download.fetch("crystallm_v1_small", record=f"{shelf.address}/record")
    with pytest.raises(CrystallmError, match="cannot be reached"):
        download.fetch("crystallm_v1_small", record=f"{shelf.address}/gone")
    with pytest.raises(InputError, match="did you mean crystallm_v1_small"):
        download.fetch("crystallm_v1_smal")


def test_archives_without_a_checkpoint_are_refused(tmp_path):
    for content, said in ((archive(b"x", "a/other.pt"), "holds no ckpt.pt"), (b"none", "cannot be read")):
        (tmp_path / "m.tar.gz").write_bytes(content)
        with pytest.raises(CheckpointError, match=said):
            load.load_model(tmp_path / "m.tar.gz")


def test_the_commands(tmp_path, monkeypatch, capsys, textbook_structures, shelf, published_file):
    monkeypatch.chdir(tmp_path)
    models_folder.save(random_model("orbits", "llama").network, tmp_path / "mine", card={"summary": "s"})
    assert app.run(["convert", "mine", "--to", "hf"]) == 0
    assert "mine-hf" in capsys.readouterr().out
    assert (
        app.run(["convert", "mine-hf", "--to", "safetensors", "--out", "again", "--dtype", "bfloat16"]) == 0
    )
    assert load.load_model("again").card == {"summary": "s"}
    push = ["convert", "mine", "--to", "hf", "--push", "org/new", "--dtype", "bfloat16", "--quiet"]
    assert app.run(push) == 0
    weights = safetensors.torch.load(shelf.pushed["model.safetensors"])
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}
    capsys.readouterr()
    textbook_structures["rutile"].to(filename="rutile.cif")
    assert app.run(["convert", "rutile.cif", "--to", "orbits", "--out", "rutile.txt"]) == 0
    assert (tmp_path / "rutile.txt").read_text().startswith("<crystal> Ti 2 O 4 (P4_2/mnm) Ti 2a O 4f")
    assert app.run(["convert", "rutile.txt", "--to", "cif", "--out", "standard.txt"]) == 0
    assert (tmp_path / "standard.txt").read_text().startswith("data_Ti2O4\n")
    assert app.run(["convert", "standard.txt", "--to", "orbits"]) == 0
    assert capsys.readouterr().out == (tmp_path / "rutile.txt").read_text()
    assert app.run(["models", "--published"]) == 0
    assert "crystallm_v1_minus_mpts_52_small" in capsys.readouterr().out
    monkeypatch.setitem(download.listed(), "record", f"{shelf.address}/record")
    assert app.run(["models", "--fetch", "crystallm_v1_small", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["path"].endswith("crystallm_v1_small.tar.gz")
    (tmp_path / "odd.txt").write_text("hello")
    (tmp_path / "odd.yaml").write_text("dtype: nn")
    for arguments, said in (
        (["convert"], "nothing to convert"),
        (["convert", "mine"], "to = None"),
        (["convert", "mine", "--to", "safetensors", "--push", "org/x"], "--push takes --to hf"),
        (["convert", "mine", "--to", "hf", "--config", "odd.yaml"], "dtype = 'nn': write float32, bfloat16"),
        (["convert", "mine-hf", "--to", "safetensors", "--out", "mine"], "is there already"),
        (["convert", "odd.txt", "--to", "cif"], "begins with 'hello'"),
        (["convert", "rutile.cif", "--to", "orbits", "--symprec", "-1"], "symprec = -1.0: write a length"),
        (["models", "--fetch", "gpt"], "no published model 'gpt'"),
    ):
        assert app.run(arguments) == 2, arguments
        err = capsys.readouterr().err
        assert said in err
        assert err.count("\n") == 1
