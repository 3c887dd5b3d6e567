"""Networks learn; a killed run goes on as if it had never been; packed crystals do not see each other."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from crystallm.datasets import packing, shards
from crystallm.errors import CheckpointError, CrystallmError, InputError
from crystallm.models import load
from crystallm.network.config import ModelConfig
from crystallm.network.transformer import GPT
from crystallm.storage import run_folder
from crystallm.training import loop, step
from crystallm.training import loss as training_loss
from crystallm.training import metrics as training_metrics
from crystallm.training import state as training_state
from crystallm.training.recipe import Recipe, learning_rate
from crystallm.training.state import TrainingProgress
from real_crystals import write_split

CPU = torch.device("cpu")
VOCABULARY = 40
TINY = {
    "n_layer": 1, "n_head": 2, "n_embd": 16, "context": 100, "batch_tokens": 128, "warmup": 3,
    "dtype": "float32", "learning_rate": 1e-2,
}  # fmt: skip


def streams(n: int, seed: int) -> list[np.ndarray]:
    """Texts of 2 to 80 tokens: some longer than a short window, so that windows of two sizes are needed."""
    rng = np.random.default_rng(seed)
    return [rng.integers(VOCABULARY, size=rng.integers(2, 80)).astype(np.uint16) for _ in range(n)]


def plain_texts() -> list[np.ndarray]:
    """Eight texts that can be told apart by their second token, and then hold no surprise."""
    return [np.array([0, *([k] * 9), 1], dtype=np.uint16) for k in range(2, 10)]


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch):
    """Drawing one takes longer than all that these runs learn."""
    monkeypatch.setattr(training_metrics, "plot", lambda _: None)


def write_data(folder, **splits):
    for split in ("train", "val"):
        write_split(folder, split, splits.get(split, []))
    facts = {"language": "orbits", "vocab_size": VOCABULARY}
    (folder / run_folder.FACTS).write_text(json.dumps(facts))
    return folder


@pytest.fixture
def data(tmp_path):
    """24 random texts to train on, 5 to validate."""
    return write_data(tmp_path / "data", train=streams(24, 0), val=streams(5, 1))


def network(dropout: float = 0.0) -> GPT:
    torch.manual_seed(0)
    shape = {"n_layer": 2, "n_head": 2, "n_embd": 32, "context": 100, "dropout": dropout}
    found = GPT(ModelConfig(language="orbits", vocab_size=VOCABULARY, **shape))
    with torch.no_grad():
        for parameter in found.parameters():
            parameter.mul_(8)  # far from the uniform guess that small first weights make
    return found.eval()


def loss_of(net: GPT, text: np.ndarray) -> float:
    """Summed loss of a text that stands alone (nats), without anything of `training`."""
    ids = torch.from_numpy(text.astype(np.int64))
    with torch.no_grad():
        logs = torch.log_softmax(net(ids[None, :-1])[0].double(), dim=-1)  # (T - 1, V)
    return -float(logs[torch.arange(len(ids) - 1), ids[1:]].sum())


def metrics(folder):
    lines = [json.loads(line) for line in (folder / training_metrics.METRICS).read_text().splitlines()]
    timed = "seconds", "tokens_per_second"
    return [{name: value for name, value in line.items() if name not in timed} for line in lines]


def state(folder):
    from safetensors import safe_open

    with safe_open(str(folder / training_state.STATE), framework="pt") as stored:
        progress = json.loads(stored.metadata()["progress"])
        progress.pop("seconds")
        return progress, {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 - no mapping


def assert_same_run(one, other):
    assert metrics(one) == metrics(other)
    (progress, tensors), (expected_progress, expected) = state(one), state(other)
    assert progress == expected_progress
    assert tensors.keys() == expected.keys()
    assert [name for name in expected if not torch.equal(tensors[name], expected[name])] == []
    for kind in (training_state.MODEL, training_state.LAST):
        found, wanted = (dict(load.load(f / kind).named_parameters()) for f in (one, other))
        assert [name for name in wanted if not torch.equal(found[name], wanted[name])] == []


# --- learning ---


def test_a_tiny_network_learns_a_tiny_set(tmp_path):
    texts = plain_texts()
    data = write_data(tmp_path / "data", train=texts, val=texts)
    recipe = Recipe(**TINY | {"n_embd": 32, "dropout": 0.0, "max_updates": 80})
    seen = []
    end = loop.train(
        recipe, data, tmp_path / "run", device="cpu", report=lambda p, losses: seen.append((p, losses))
    )
    assert (end.update, end.share, len(seen)) == (80, 1.0, 80)
    validations = [losses for _, losses in seen if losses is not None]
    assert len(validations) == 20
    # Which of the eight texts it is cannot be known: log 8 nats a crystal. All else can.
    assert math.log(8) <= validations[-1].crystal < math.log(8) + 0.5 < validations[0].crystal
    assert end.best == min(losses.crystal for losses in validations)
    assert end.tokens == 80 * sum(map(len, texts))
    best = load.load(tmp_path / "run" / "model", device="cpu")
    held_out = shards.load(data, "val")
    assert training_loss.validate(best, held_out, CPU, "float32").crystal == pytest.approx(end.best, rel=1e-5)
    lines = metrics(tmp_path / "run")
    assert [line["update"] for line in lines] == list(range(4, 81, 4))
    assert lines[-1]["val_loss_crystal"] == pytest.approx(validations[-1].crystal, abs=1e-4)
    assert lines[-1]["train_loss"] == pytest.approx(np.mean([p.loss for p, _ in seen[-1:]]), abs=1e-5)


def test_the_same_seed_gives_the_same_run_and_another_another(tmp_path, data):
    for name, seed in (("one", 1), ("two", 1), ("three", 2)):
        recipe = Recipe(**TINY, dropout=0.2, max_updates=6, validate_every=0.5, seed=seed)
        loop.train(recipe, data, tmp_path / name, device="cpu")
    assert_same_run(tmp_path / "one", tmp_path / "two")
    assert metrics(tmp_path / "one") != metrics(tmp_path / "three")


def test_bfloat16_learns_too(tmp_path):
    data = write_data(tmp_path / "data", train=plain_texts(), val=plain_texts())
    recipe = Recipe(**TINY | {"dtype": "auto"}, max_updates=30, validate_every=0.5)
    loop.train(recipe, data, tmp_path / "run", device="cpu")
    first, last = metrics(tmp_path / "run")
    assert last["val_loss"] < 0.7 * first["val_loss"]
    assert {tensor.dtype for tensor in state(tmp_path / "run")[1].values()} == {torch.float32}


# --- losses ---


@pytest.mark.parametrize("taught", [False, True], ids=["evaluation", "training"])
def test_packed_crystals_do_not_see_each_other(taught):
    net = network().train(taught)
    texts = streams(30, 2)
    starts = np.cumsum([0, *map(len, texts)], dtype=np.int64)
    split = shards.TokenSplit(np.concatenate(texts), starts, "orbits", VOCABULARY)
    total, n_windows = 0.0, 0
    for batch in packing.batches(split, batch_tokens=400, context=100, seed=0, epoch=0):
        with torch.set_grad_enabled(taught):  # which takes another way through attention
            loss, _, n = training_loss.sum_losses(net, batch, CPU, "float32")
        rows = list(zip(batch.ids, batch.segments, strict=True))
        inside = [ids[segments == k] for ids, segments in rows for k in range(segments.max() + 1)]
        assert n == sum(len(text) - 1 for text in inside)
        assert loss.item() == pytest.approx(sum(loss_of(net, text) for text in inside), rel=1e-5)
        total, n_windows = total + loss.item(), n_windows + len(batch.ids)
    assert n_windows < len(texts)
    assert total == pytest.approx(sum(loss_of(net, text) for text in texts), rel=1e-5)


def test_validation_is_the_mean_over_crystals_and_over_tokens():
    net = network(dropout=0.5).train()
    texts = [*streams(12, 3), np.zeros(101, dtype=np.uint16)]  # the last does not fit the context
    starts = np.cumsum([0, *map(len, texts)], dtype=np.int64)
    split = shards.TokenSplit(np.concatenate(texts), starts, "orbits", VOCABULARY)
    found = training_loss.validate(net, split, CPU, "float32")
    assert net.training
    net.eval()
    by_hand = [loss_of(net, text) for text in texts[:-1]]
    assert found.crystal == pytest.approx(sum(by_hand) / 12, rel=1e-5)
    assert found.token == pytest.approx(sum(by_hand) / sum(len(text) - 1 for text in texts[:-1]), rel=1e-5)


# --- the schedule ---


def test_the_rate_rises_then_falls_as_a_cosine():
    recipe = Recipe(learning_rate=2.0, final_learning_rate_fraction=0.1, warmup=4, max_updates=100)
    assert [learning_rate(recipe, update, 0.0) for update in range(6)] == [
        0.5,
        1.0,
        1.5,
        2.0,
        2.0,
        2.0,
    ]
    assert learning_rate(recipe, 50, 0.5) == pytest.approx(1.1)
    assert learning_rate(recipe, 50, 0.25) == pytest.approx(0.2 + 0.9 * (1 + math.sqrt(0.5)))
    assert learning_rate(recipe, 100, 1.0) == learning_rate(recipe, 100, 1.2) == pytest.approx(0.2)
    assert learning_rate(recipe.model_copy(update={"warmup": 0}), 0, 0.0) == 2.0


def test_minutes_are_those_of_training_alone(tmp_path, data, monkeypatch):
    clock = iter(range(10**6))
    monkeypatch.setattr(loop.time, "monotonic", lambda: float(next(clock)))
    validate = training_loss.validate

    def slow(*arguments, **more):
        for _ in range(1000):
            next(clock)
        return validate(*arguments, **more)

    monkeypatch.setattr(loop, "validate", slow)
    recipe = Recipe(**TINY, max_minutes=0.2, validate_every=0.25)
    end = loop.train(recipe, data, tmp_path / "run", device="cpu")
    assert (end.update, end.seconds, end.share) == (12, 12.0, 1.0)
    assert [line["update"] for line in metrics(tmp_path / "run")] == [3, 6, 9, 12]


def test_only_matrices_decay():
    (only,) = step.make_optimizers(network(), Recipe(max_updates=1, weight_decay=0.3))
    decayed, kept = only.param_groups
    assert (decayed["weight_decay"], kept["weight_decay"]) == (0.3, 0.0)
    assert {p.dim() for p in decayed["params"]} == {2}
    assert {p.dim() for p in kept["params"]} == {1}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "give one of max_tokens, max_updates, max_minutes, the length of the schedule, not none"),
        ({"max_minutes": 1, "max_updates": 1}, "not max_updates and max_minutes"),
        ({"max_tokens": 9, "max_minutes": 1}, "not max_tokens and max_minutes"),
        ({"max_updates": 1, "n_layers": 2}, "n_layers"),
        ({"max_updates": 1, "n_embd": 30, "n_head": 4}, "n_embd=30 must be a multiple of n_head=4"),
        ({"max_updates": 0}, "max_updates"),
        ({"max_minutes": float("inf"), "n_layer": 0}, "n_layer"),
        ({"max_updates": 1, "dtype": "float8"}, "dtype"),
        ({"max_updates": 1, "packing": "whole"}, "packing"),
        (
            {"max_updates": 1, "packing": "random", "rare_group_exponent": 0.5},
            "rare_group_exponent=0.5 weights crystals, but random",
        ),
    ],
)
def test_a_recipe_that_is_none_is_refused(fields, message):
    with pytest.raises(ValidationError, match=message):
        Recipe(**fields)


def test_a_recipe_cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        Recipe(max_updates=1).seed = 2


# --- killed runs ---

LONG = Recipe(**TINY, dropout=0.2, max_updates=20, validate_every=0.25)  # validates at 5, 10, 15 and 20


@pytest.fixture
def whole(tmp_path, data):
    """The run that was never killed."""
    loop.train(LONG, data, tmp_path / "whole", device="cpu")
    return tmp_path / "whole"


def stop_at(update):
    def report(progress, _):
        if progress.update == update:
            raise KeyboardInterrupt

    return report


@pytest.mark.parametrize("updates", [[3], [5], [7], [12, 13, 16], [20]], ids=str)
def test_a_run_that_was_stopped_ends_as_one_that_was_not(tmp_path, data, whole, updates):
    place = tmp_path / "run"
    for number, update in enumerate(updates):
        with pytest.raises(KeyboardInterrupt):
            loop.train(LONG, data, place, device="cpu", resume=number > 0, report=stop_at(update))
    other = Recipe(max_updates=1)  # the one in the folder counts
    assert loop.train(other, data, place, device="cpu", resume=True).update == 20
    assert_same_run(place, whole)


@pytest.mark.parametrize(
    ("holder", "name", "call"),
    [
        (training_metrics, "append", 3),
        (training_state, "save", 3),
        (loop, "save_model", 1),
        (loop, "save_model", 4),
    ],
)
def test_a_run_that_died_while_it_wrote_ends_as_one_that_did_not(
    tmp_path, data, whole, monkeypatch, holder, name, call
):
    place = tmp_path / "run"
    real, calls = getattr(holder, name), []

    def die(*arguments, **more):
        calls.append(1)
        if len(calls) == call:
            raise KeyboardInterrupt
        return real(*arguments, **more)

    with monkeypatch.context() as patch:
        patch.setattr(holder, name, die)
        with pytest.raises(KeyboardInterrupt):
            loop.train(LONG, data, place, device="cpu")
    loop.train(LONG, data, place, device="cpu", resume=True)
    assert_same_run(place, whole)


KILLED = """
import os, signal, sys
from crystallm.training.loop import train
from crystallm.training.recipe import Recipe
recipe = Recipe.model_validate_json(sys.argv[1])
def report(progress, losses):
    if progress.update == 13:
        os.kill(os.getpid(), signal.SIGKILL)
train(recipe, sys.argv[2], sys.argv[3], device="cpu", report=report)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is of POSIX")
def test_a_run_that_was_killed_ends_as_one_that_was_not(tmp_path, data, whole):
    place = tmp_path / "run"
    arguments = [LONG.model_dump_json(), str(data), str(place)]
    code = subprocess.run([sys.executable, "-c", KILLED, *arguments], check=False).returncode
    assert code == -signal.SIGKILL
    with (place / training_metrics.METRICS).open("a") as file:
        file.write('{"update": 15, "share"')  # what a line looks like that was being written
    loop.train(LONG, data, place, device="cpu", resume=True)
    assert_same_run(place, whole)


def test_a_finished_run_stays_as_it_is(data, whole):
    before = (whole / training_state.STATE).read_bytes(), metrics(whole)
    end = loop.train(LONG, data, whole, device="cpu", resume=True)
    assert (end.update, end.share) == (20, 1.0)
    assert ((whole / training_state.STATE).read_bytes(), metrics(whole)) == before


# --- what goes wrong ---


@pytest.mark.parametrize("poison", ["loss", "gradient", "validation"])
def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_last_good_state(
    tmp_path, data, monkeypatch, poison
):
    place, kept = tmp_path / "run", []

    def report(progress, found):
        if found is not None:
            kept.append(((place / training_state.STATE).read_bytes(), metrics(place)))
            spoil()

    def spoil():
        if poison == "validation":
            monkeypatch.setattr(loop, "validate", lambda *_, **__: training_loss.Losses(math.nan, math.nan))
            return
        real = training_loss.sum_losses

        def broken(*arguments, **more):
            found = real(*arguments, **more)
            loss = found.weighted
            if poison == "loss":
                return found._replace(unweighted=found.unweighted * math.nan)
            # sqrt has an infinite slope at 0: a finite loss whose gradient is none
            return found._replace(weighted=loss + torch.sqrt(loss - loss))

        monkeypatch.setattr(step, "sum_losses", broken)

    with pytest.raises(CrystallmError, match=r"loss is .* at update \d+; the last good state is") as caught:
        loop.train(LONG, data, place, device="cpu", report=report)
    assert "nan" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(kept) == 1
    assert ((place / training_state.STATE).read_bytes(), metrics(place)) == kept[0]
    assert all(tensor.isfinite().all() for tensor in state(place)[1].values())
    monkeypatch.undo()
    assert loop.train(LONG, data, place, device="cpu", resume=True).update == 20


def test_a_loss_that_is_no_number_from_the_start_leaves_the_start(tmp_path, data, monkeypatch):
    real = training_loss.sum_losses

    def broken(*arguments, **more):
        found = real(*arguments, **more)
        return found._replace(unweighted=found.unweighted * math.inf)

    with monkeypatch.context() as patch:
        patch.setattr(step, "sum_losses", broken)
        with pytest.raises(CrystallmError, match="the loss is inf .* at update 0"):
            loop.train(LONG, data, tmp_path / "run", device="cpu")
    assert state(tmp_path / "run")[0]["update"] == 0
    assert loop.train(LONG, data, tmp_path / "run", device="cpu", resume=True).update == 20


def test_a_full_disk_is_one_line_and_keeps_the_last_state(tmp_path, data, monkeypatch):
    import safetensors.torch

    place, real, calls = tmp_path / "run", safetensors.torch.save_file, []

    def full(tensors, path, **more):
        calls.append(1)
        if (
            training_state.STATE in str(path) and len(calls) > 4
        ):  # the start, two models, and the first good one
            (place / f".{training_state.STATE}.new").write_bytes(b"half")
            raise OSError(28, "No space left on device")
        real(tensors, path, **more)

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    with pytest.raises(CrystallmError, match="cannot write .*No space left"):
        loop.train(LONG, data, place, device="cpu")
    assert state(place)[0]["update"] == 5
    assert sorted(path.name for path in place.iterdir()) == sorted(
        [
            training_state.LAST,
            training_metrics.METRICS,
            training_state.MODEL,
            training_state.RECIPE,
            training_state.STATE,
        ]
    )


def test_a_folder_that_holds_a_run_is_not_taken(tmp_path, data, whole):
    before = (whole / training_state.STATE).read_bytes()
    with pytest.raises(InputError, match="holds a run already: resume it, or give a new folder"):
        loop.train(LONG, data, whole, device="cpu")
    assert (whole / training_state.STATE).read_bytes() == before


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path, data):
    (tmp_path / "file").write_text("")
    with pytest.raises(CrystallmError, match="cannot be written"):
        loop.train(LONG, data, tmp_path / "file" / "run", device="cpu")


def test_nothing_to_resume(tmp_path, data):
    with pytest.raises(InputError, match="nothing to resume in .*: it holds no state.safetensors"):
        loop.train(LONG, data, tmp_path / "run", device="cpu", resume=True)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("kind", ["cut", "empty", "noise", "foreign", "other network", "without a progress"])
def test_a_damaged_state_is_refused(data, whole, kind):
    from safetensors.torch import save_file

    path = whole / training_state.STATE
    content = path.read_bytes()
    if kind == "cut":
        path.write_bytes(content[: len(content) * 2 // 3])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "noise":
        path.write_bytes(bytes(range(256)) * 40)
    elif kind == "foreign":
        save_file({"x": torch.zeros(1)}, str(path))
    elif kind == "other network":
        recipe = LONG.model_copy(update={"n_embd": 32})
        (whole / training_state.RECIPE).write_text(recipe.model_dump_json())
    else:
        save_file(state(whole)[1], str(path), metadata={"progress": '{"max_updates": 3}'})
    with pytest.raises(CheckpointError, match="does not hold the state of this run") as caught:
        loop.train(LONG, data, whole, device="cpu", resume=True)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["", "{}", '{"max_updates": 20, "depth": 3}', None])
def test_a_damaged_recipe_is_refused(data, whole, content):
    path = whole / training_state.RECIPE
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(CheckpointError, match="recipe.json' is not a recipe") as caught:
        loop.train(LONG, data, whole, device="cpu", resume=True)
    assert "\n" not in str(caught.value)


def test_other_data_are_not_gone_on_with(tmp_path, whole):
    other = write_data(tmp_path / "other", train=streams(25, 0), val=streams(5, 1))
    with pytest.raises(InputError, match="was trained on other data: .*'crystals': 24.*'crystals': 25"):
        loop.train(LONG, other, whole, device="cpu", resume=True)


def test_data_that_teach_nothing_are_refused(tmp_path):
    texts = streams(3, 0)
    long = [np.zeros(101, dtype=np.uint16)]
    for number, (split, texts_of) in enumerate(
        [("val", {"train": texts}), ("train", {"val": texts}), ("train", {"train": long, "val": texts})]
    ):
        data = write_data(tmp_path / f"data{number}", **texts_of)
        with pytest.raises(InputError, match=f"no crystal of the split '{split}' .* a context of 100 tokens"):
            loop.train(LONG, data, tmp_path / "run", device="cpu")
    with pytest.raises(InputError, match="no data set"):
        loop.train(LONG, tmp_path / "nowhere", tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("device", ["gpu", "", "cpu:x"])
def test_a_device_that_is_none_is_refused(tmp_path, data, device):
    with pytest.raises(InputError, match="no such device"):
        loop.train(LONG, data, tmp_path / "run", device=device)
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")
def test_a_gpu_that_is_not_there_is_refused(tmp_path, data):
    with pytest.raises(InputError, match="device 'cuda' cannot be used"):
        loop.train(LONG, data, tmp_path / "run", device="cuda")


# --- from weights that there are ---


def test_a_run_may_start_from_the_weights_of_a_model(tmp_path):
    texts = plain_texts()
    data = write_data(tmp_path / "data", train=texts, val=texts)
    recipe = Recipe(**TINY | {"n_embd": 32, "dropout": 0.0, "max_updates": 80})
    first = loop.train(recipe, data, tmp_path / "first", device="cpu")
    model = str(tmp_path / "first" / "model")
    further = recipe.model_copy(update={"init_from": model, "max_updates": 4, "learning_rate": 1e-4})
    end = loop.train(further, data, tmp_path / "further", device="cpu")
    assert end.best == pytest.approx(first.best, rel=0.05)  # where random weights have three times as much
    assert training_state.read_recipe(tmp_path / "further").init_from == model


def test_weights_of_another_form_are_refused(tmp_path, data, whole):
    other = Recipe(**TINY | {"n_embd": 8, "max_updates": 2, "init_from": str(whole / "model")})
    with pytest.raises(InputError, match="has n_embd = 16, this run 8"):
        loop.train(other, data, tmp_path / "run", device="cpu")
    with pytest.raises(CheckpointError, match="nowhere"):
        loop.train(other.model_copy(update={"init_from": "nowhere"}), data, tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()


# --- what is needed ---


def test_training_needs_neither_pymatgen_nor_pyarrow():
    names = (
        "orbits.language", "tokenizer", "grammar.factory", "sampling.sample", "network.transformer",
        "models.load", "datasets.shards", "training.loop",
    )  # fmt: skip
    script = f"""
import sys
import {", ".join(f"crystallm.{name}" for name in names)}
from crystallm.language import get_language
get_language("orbits").prompt([("Ti", 2)], 136)
print(sorted({{"pymatgen", "pyarrow", "spglib"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_new_run_has_gone_nowhere():
    assert vars(TrainingProgress()) == {
        "share": 0.0, "update": 0, "epoch": 0, "batch": 0, "seconds": 0.0, "tokens": 0, "loss": math.inf,
        "best": math.inf, "stale": 0, "operations": 0.0,
    }  # fmt: skip
