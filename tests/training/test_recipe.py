"""What a recipe may say beyond the plain loop: budgets, averages, early ends, arithmetic, windows."""

from __future__ import annotations

import itertools
import json
import math
import sys
import threading
import time
import types

import numpy as np
import pytest
import torch

from crystallm.datasets import packing, shards
from crystallm.errors import CheckpointError, CrystallmError, InputError
from crystallm.models import load
from crystallm.network import transformer
from crystallm.network.config import ModelConfig
from crystallm.storage import run_folder
from crystallm.training import distributed, flops, loop, metrics, prefetch, state, step
from crystallm.training import loss as training_loss
from crystallm.training.loss import Losses
from crystallm.training.recipe import Recipe
from real_crystals import write_split

CPU = torch.device("cpu")
TINY = {
    "n_layer": 1, "n_head": 2, "n_embd": 16, "context": 100, "batch_tokens": 128, "warmup": 3,
    "dtype": "float32", "learning_rate": 1e-2, "dropout": 0.0, "updates": 12, "validate_every": 0.25,
}  # fmt: skip


def write_data(folder, seed, vocab_size=40, language="orbits"):
    rng = np.random.default_rng(seed)
    for split, n in (("train", 40), ("val", 6)):
        texts = [rng.integers(40, size=rng.integers(2, 80)) for _ in range(n)]
        write_split(folder, split, texts)
    (folder / run_folder.FACTS).write_text(json.dumps({"language": language, "vocab_size": vocab_size}))
    return folder


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Trains a tiny network with these fields; the folder and what was reported."""
    monkeypatch.setattr(metrics, "picture", lambda _: None)
    data = write_data(tmp_path / "data", 0)

    def train(name="run", *, resume=False, data=data, stop=None, **fields):
        budget = {"updates": None} if {"tokens", "minutes"} & fields.keys() else {}
        seen = []

        def report(progress, losses):
            seen.append((progress, losses))
            if progress.update == stop:
                raise KeyboardInterrupt

        recipe = Recipe(**TINY | budget | fields)
        loop.train(recipe, data, tmp_path / name, device="cpu", resume=resume, report=report)
        return tmp_path / name, seen

    return train


def lines(folder):
    return [
        {k: v for k, v in line.items() if k not in ("seconds", "tokens_per_second")}
        for line in metrics.lines(folder)
    ]


def weights(folder, kind):
    return dict(load.load(folder / kind, device="cpu").named_parameters())


# --- length ---


def test_a_budget_of_tokens_ends_with_it(run):
    folder, seen = run(tokens=1000)
    assert [p.share for p, _ in seen] == [min(1.0, p.tokens / 1000) for p, _ in seen]
    assert seen[-2][0].tokens < 1000 <= seen[-1][0].tokens
    assert lines(folder)[-1]["share"] == 1.0


@pytest.mark.parametrize("stop", [None, 9])
def test_patience_ends_a_run_that_no_longer_learns(run, monkeypatch, stop):
    heard = iter([3.0, 2.0, 2.5, 2.0, 1.0, 9.0])
    monkeypatch.setattr(training_loss, "validate", lambda *_: Losses(1.0, next(heard)))
    fields = {"updates": 30, "validate_every": 0.1, "patience": 2}
    if stop:
        with pytest.raises(KeyboardInterrupt):
            run(stop=stop, **fields)
    folder, seen = run(resume=stop is not None, **fields)
    assert [line["val_loss_crystal"] for line in lines(folder)] == [3.0, 2.0, 2.5, 2.0]
    end = seen[-1][0]
    assert (end.update, end.stale, end.best) == (12, 2, 2.0)
    _, seen = run(resume=True)
    assert seen == []  # it has ended


@pytest.mark.parametrize(("spike", "ends"), [(2.0, True), (8.0, False), (None, False)])
def test_a_jump_of_the_loss_ends_the_run_with_the_last_good_state(run, monkeypatch, spike, ends):
    real, calls = training_loss.summed_loss, []

    def jumping(*arguments, **more):
        calls.append(1)
        found = real(*arguments, **more)
        return found._replace(whole=found.whole + (5 * found.n if len(calls) == 14 else 0))

    monkeypatch.setattr(training_loss, "summed_loss", jumping)
    fields = {"updates": 20, "spike": spike}
    if not ends:
        assert run(**fields)[1][-1][0].update == 20
        return
    with pytest.raises(
        CrystallmError,
        match=r"the loss is \d\.\d+ at update 13, where the mean of the last 13 was .* last good state .* "
        r"lower learning_rate in recipe.json beside it and resume, or set spike to null",
    ) as caught:
        run(**fields)
    assert "\n" not in str(caught.value)
    _, seen = run(resume=True, **fields)
    assert [p.update for p, _ in seen] == list(range(11, 21))


# --- averages ---


def test_averaged_weights_are_validated_and_saved(run):
    folder, seen = run(ema=0.5, updates=1, validate_every=1.0)
    plain, _ = run("plain", updates=1, validate_every=1.0)
    torch.manual_seed(0)
    config = load.load(plain / state.LAST, device="cpu").config
    first = dict(transformer.GPT(config).named_parameters())
    learned = weights(plain, state.LAST)
    kept = 2 / 11  # at the first update, where it is below 0.5
    for name, average in weights(folder, state.LAST).items():
        assert torch.allclose(average, kept * first[name] + (1 - kept) * learned[name], atol=1e-6)
    held_out = shards.load(folder.parent / "data", "val")
    best = load.load(folder / state.MODEL, device="cpu")
    assert seen[-1][1].crystal == pytest.approx(
        training_loss.validate(best, held_out, CPU, "float32").crystal
    )


def test_the_last_model_is_kept_beside_the_best(run, monkeypatch):
    heard = iter([3.0, 2.0, 4.0, 5.0])
    monkeypatch.setattr(training_loss, "validate", lambda *_: Losses(1.0, next(heard)))
    folder, _ = run()
    best, last = weights(folder, state.MODEL), weights(folder, state.LAST)
    assert not torch.equal(best["transformer.wte.weight"], last["transformer.wte.weight"])


# --- micro-batches and arithmetic ---


def test_an_update_is_the_mean_over_all_targets_of_its_micro_batches(run):
    folder, seen = run(accumulate=3, updates=2, validate_every=1.0)
    data = shards.load(folder.parent / "data", "train")
    torch.manual_seed(0)
    net = transformer.GPT(load.load(folder / state.LAST, device="cpu").config)
    found = [
        training_loss.summed_loss(net, batch, CPU, "float32")
        for _, batch in zip(
            range(3), packing.batches(data, batch_tokens=128, context=100, seed=0, epoch=0), strict=False
        )
    ]
    assert seen[0][0].loss == pytest.approx(
        sum(f.whole.item() for f in found) / sum(f.n for f in found), rel=1e-5
    )


def test_float16_learns_and_its_scale_outlives_a_stop(run):
    whole, _ = run("whole", dtype="float16", dropout=0.1)
    with pytest.raises(KeyboardInterrupt):
        run(dtype="float16", dropout=0.1, stop=8)
    folder, seen = run(resume=True, dtype="float16")
    assert seen[-1][0].update == 12
    assert lines(folder) == lines(whole)
    exact, _ = run("exact", dropout=0.1)
    assert lines(folder)[-1]["train_loss"] == pytest.approx(lines(exact)[-1]["train_loss"], abs=0.02)


def test_float16_steps_over_gradients_that_overflow(run, monkeypatch):
    real, calls = training_loss.summed_loss, []

    def overflowing(*arguments, **more):
        calls.append(1)
        found = real(*arguments, **more)
        loss = found.weighed
        # a finite loss whose gradient is none, as where a product leaves the range of float16
        return found._replace(weighed=loss + torch.sqrt(loss - loss)) if len(calls) == 3 else found

    monkeypatch.setattr(training_loss, "summed_loss", overflowing)
    folder, seen = run(dtype="float16")
    assert seen[-1][0].update == 12
    assert all(torch.isfinite(p).all() for p in weights(folder, state.LAST).values())


def test_compiled_features_are_used(run, monkeypatch):
    called = []

    def compiler(features):
        def compiled(*arguments, **more):
            called.append(1)
            return features(*arguments, **more)

        return compiled

    monkeypatch.setattr(torch, "compile", compiler)
    compiled, _ = run("compiled", compile=True)
    plain, _ = run("plain")
    assert len(called) == 12
    assert lines(compiled) == lines(plain)


# --- windows and data ---


@pytest.mark.parametrize("windows", ["starts", "random"])
def test_pieces_of_the_stream_teach_and_a_stopped_run_goes_on(run, windows):
    fields = {"windows": windows, "dropout": 0.1, "context": 60}
    whole, _ = run("whole", **fields)
    with pytest.raises(KeyboardInterrupt):
        run(stop=8, **fields)
    folder, seen = run(resume=True)
    assert lines(folder) == lines(whole)
    assert seen[-1][0].tokens == 12 * 120


def test_older_data_are_mixed_in(run, tmp_path):
    older = write_data(tmp_path / "older", 1)
    folder, _ = run(mix=str(older), mix_share=0.4)
    assert state.read_recipe(folder).mix == str(older)
    other = write_data(tmp_path / "other", 1, language="cif")
    with pytest.raises(
        InputError, match="is in 'cif' with 40 tokens, the data set in 'orbits' with 40: prep"
    ):
        run("third", mix=str(other))
    with pytest.raises(InputError, match="no data set in"):
        run("third", mix="nowhere")
    assert not (tmp_path / "third").exists()


TOLD = {"tokens": 3000, "equivalents": 0.5}


def tell(data, n, n_crystals=40):
    """So many other descriptions of each training crystal."""
    rng = np.random.default_rng(n)
    write_split(data, shards.EQUIVALENTS, [rng.integers(40, size=20) for _ in range(n * n_crystals)])


def test_equivalents_are_drawn_and_a_stopped_run_goes_on(run, tmp_path):
    tell(tmp_path / "data", 2)
    whole, seen = run("whole", **TOLD)
    assert seen[-1][0].share == 1.0
    plain, _ = run("plain", tokens=3000)
    assert lines(whole) != lines(plain)
    with pytest.raises(KeyboardInterrupt):
        run(stop=10, **TOLD)
    folder, _ = run(resume=True)
    assert lines(folder) == lines(whole)


def test_other_equivalents_are_other_data(run, tmp_path):
    tell(tmp_path / "data", 2)
    run(**TOLD)
    tell(tmp_path / "data", 3)
    with pytest.raises(InputError, match="was trained on other data: .*'equivalents': 80"):
        run(resume=True)


def test_data_without_equivalents_are_refused_with_the_mend(run, tmp_path):
    with pytest.raises(
        InputError, match=r"no split 'equivalents' in .* `crystallm prepare --equivalents 6`"
    ) as caught:
        run(**TOLD)
    assert "\n" not in str(caught.value)
    tell(tmp_path / "data", 1, n_crystals=39)
    with pytest.raises(
        InputError, match=r"has 39 crystals, no multiple of the 40 of 'train': prepare the da"
    ):
        run(**TOLD)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"updates": 5}, "equivalents=0.5 is a share of a schedule in tokens, .*: give tokens, or equival"),
        ({"minutes": 5}, "equivalents=0.5 is a share of a schedule in tokens, .*: give tokens, or equival"),
        ({"tokens": 5, "windows": "random"}, "equivalents=0.5 goes with windows packed"),
        ({"tokens": 5, "windows": "starts"}, "equivalents=0.5 goes with windows packed"),
        ({"tokens": 5, "mix": "older"}, "equivalents=0.5 goes with no mix"),
    ],
)
def test_what_equivalents_do_not_go_with(fields, message):
    with pytest.raises(ValueError, match=message):
        Recipe(equivalents=0.5, **fields)


def test_a_recipe_for_another_language_is_refused(run, tmp_path):
    run(language="orbits", updates=1)
    with pytest.raises(InputError, match="is in the language 'orbits', and the recipe for 'cif': prepare"):
        run("other", language="cif")


def test_rare_groups_need_crystals_of_the_language(run):
    with pytest.raises(InputError, match="has no space group"):
        run(rare=0.5)


def test_the_form_of_a_model_is_known(run):
    folder, _ = run(updates=1)
    assert loop.form_of(str(folder / "model")) == {
        "form": "gpt2", "n_layer": 1, "n_head": 2, "n_embd": 16, "bias": False, "context": 100,
    }  # fmt: skip
    with pytest.raises(CheckpointError, match="nowhere"):
        loop.form_of("nowhere")


# --- what is told ---


def test_the_losses_are_drawn(run, monkeypatch):
    monkeypatch.undo()
    folder, _ = run(updates=2, validate_every=0.5)
    assert (folder / metrics.PICTURE).read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_nothing_is_drawn(run, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    folder, _ = run(updates=1)
    assert not (folder / metrics.PICTURE).exists()


def test_events_are_written_where_tensorboard_is(run, monkeypatch):
    told = []

    class SummaryWriter:
        def __init__(self, place, *, purge_step):
            told.append((place, purge_step))

        def add_scalar(self, name, value, update):
            told.append((name, value, update))

        def flush(self):
            told.append("flushed")

        close = flush

    module = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = SummaryWriter
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    folder, _ = run(updates=2, validate_every=0.5)
    first, second = lines(folder)
    assert told[0] == (str(folder / metrics.EVENTS), 1)
    assert {("val_loss", line["val_loss"], line["update"]) for line in (first, second)} <= set(told)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    run("without", updates=1)


def test_operations_are_counted_as_palm_counts():
    config = ModelConfig(language="cif", vocab_size=371, n_layer=8, n_embd=512, context=1024)
    n = transformer.GPT(config).num_parameters()
    per_token = flops.operations(config, n, 10, 10 * 1024) / 10
    assert per_token == pytest.approx(6 * 25.4e6 + 12 * 8 * 512 * 1024, rel=0.01)


def test_a_run_counts_its_operations(run):
    _, seen = run(windows="random", context=64, updates=2, accumulate=2)
    net = transformer.GPT(
        ModelConfig(language="orbits", vocab_size=40, n_layer=1, n_head=2, n_embd=16, context=64)
    )
    expected = flops.operations(net.config, net.num_parameters(), 2 * 256, 2 * 256 * 64)
    assert seen[-1][0].operations == expected


def test_the_peak_of_this_machine_is_measured():
    found, origin = flops.peak(CPU, "float32")
    assert origin == "measured"
    assert 1e9 < found < 1e14


@pytest.mark.parametrize(
    ("name", "tera"),
    [
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("Tesla T4", 65),
    ],
)
def test_the_peak_of_a_gpu_is_that_of_its_data_sheet(monkeypatch, name, tera):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: name)
    assert flops.peak(torch.device("cuda", 0))[0] == tera * 1e12


# --- batches made ahead ---


def test_items_come_in_their_order_and_errors_through():
    def items():
        yield from range(5)
        raise ValueError("no more")

    found = []
    with pytest.raises(ValueError, match="no more"), prefetch.ahead(items()) as ready:
        found.extend(ready)
    assert found == [0, 1, 2, 3, 4]
    with prefetch.ahead(iter([1, 2])) as ready:
        assert list(ready) == [1, 2]


def test_no_thread_outlives_a_block_that_ends_early():
    def items():
        for k in itertools.count(1):
            yield k
            time.sleep(0.05)  # as a batch that takes its time, in which the block ends

    with prefetch.ahead(items()) as ready:
        assert next(ready) == 1
    assert "batches" not in {thread.name for thread in threading.enumerate()}


def test_one_process_is_a_world_of_its_own():
    with distributed.world("cpu") as world:
        assert (world.rank, world.size, world.first) == (0, 1, True)
        assert world.of_first(math.pi) == math.pi
        with pytest.raises(ValueError, match="as it is"), world.together():
            raise ValueError("as it is")


def test_light_tokens_teach_less_and_are_told_as_they_are(run, monkeypatch):
    from crystallm.orbits.language import OrbitsLanguage

    fields = {"updates": 1, "validate_every": 1.0, "weight_decay": 0.0}
    plain, seen = run("plain", **fields)
    monkeypatch.setattr(OrbitsLanguage, "low_weight_ids", tuple(range(40)))
    nothing, told = run("nothing", light=0.0, **fields)
    assert told[0][0].loss == pytest.approx(seen[0][0].loss)
    torch.manual_seed(0)
    fresh = transformer.GPT(load.load(plain / state.LAST, device="cpu").config)
    before = dict(fresh.named_parameters())
    assert all(torch.equal(w, before[name]) for name, w in weights(nothing, state.LAST).items())
    monkeypatch.setattr(OrbitsLanguage, "low_weight_ids", tuple(range(20)))
    some, _ = run("some", light=0.5, **fields)
    found = [weights(place, state.LAST)["transformer.wte.weight"] for place in (plain, some)]
    assert not torch.equal(*found)


@pytest.mark.parametrize("form", ["gpt2", "llama"])
def test_a_stop_changes_nothing_with_muon(run, form):
    fields = {"optimizer": "muon", "form": form, "dropout": 0.1}
    whole, _ = run("whole", **fields)
    with pytest.raises(KeyboardInterrupt):
        run(stop=8, **fields)
    folder, _ = run(resume=True)
    assert lines(folder) == lines(whole)
    one, other = weights(folder, state.LAST), weights(whole, state.LAST)
    assert all(torch.equal(one[name], other[name]) for name in other)


def test_muon_moves_the_matrices_of_blocks_alone():
    network = transformer.GPT(ModelConfig(language="orbits", vocab_size=40, n_layer=1, n_head=2, n_embd=16))
    adamw, muon = step.optimizers(network, Recipe(updates=1, optimizer="muon"))
    names = {id(p): name for name, p in network.named_parameters()}
    moved = [{names[id(p)] for g in o.param_groups for p in g["params"]} for o in (adamw, muon)]
    block = "transformer.h.0."
    layers = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    assert moved[1] == {f"{block}{layer}.weight" for layer in layers}
    assert moved[0] == set(names.values()) - moved[1]
