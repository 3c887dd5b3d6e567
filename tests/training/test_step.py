"""Updates: gradients, float16, Muon, weights of tokens, jumps of the loss."""

from __future__ import annotations

import math

import pytest
import torch

from crystallm.datasets import packing, shards
from crystallm.errors import CrystallmError
from crystallm.models import load
from crystallm.network import transformer
from crystallm.network.config import ModelConfig
from crystallm.training import loss as training_loss
from crystallm.training import state, step
from crystallm.training.recipe import Recipe
from tiny_runs import lines, weights

CPU = torch.device("cpu")
needs_muon = pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="Muon came with torch 2.9")


@pytest.mark.parametrize(("spike", "ends"), [(2.0, True), (8.0, False), (None, False)])
def test_a_jump_of_the_loss_ends_the_run_with_the_last_good_state(run, monkeypatch, spike, ends):
    real, calls = training_loss.sum_losses, []

    def jumping(*arguments, **more):
        calls.append(1)
        found = real(*arguments, **more)
        return found._replace(unweighted=found.unweighted + (5 * found.n if len(calls) == 14 else 0))

    monkeypatch.setattr(step, "sum_losses", jumping)
    fields = {"max_updates": 20, "max_loss_jump": spike}
    if not ends:
        assert run(**fields)[1][-1][0].update == 20
        return
    with pytest.raises(
        CrystallmError,
        match=r"the loss is \d\.\d+ at update 13, where the mean of the last 13 was .* last good state .* "
        r"lower learning_rate in recipe.json beside it and resume, or set max_loss_jump to null",
    ) as caught:
        run(**fields)
    assert "\n" not in str(caught.value)
    _, seen = run(resume=True, **fields)
    assert [p.update for p, _ in seen] == list(range(11, 21))


def test_an_update_is_the_mean_over_all_targets_of_its_micro_batches(run):
    folder, seen = run(gradient_accumulation=3, max_updates=2, validate_every=1.0)
    data = shards.load(folder.parent / "data", "train")
    torch.manual_seed(0)
    net = transformer.GPT(load.load(folder / state.LAST, device="cpu").config)
    found = [
        training_loss.sum_losses(net, batch, CPU, "float32")
        for _, batch in zip(
            range(3), packing.batches(data, batch_tokens=128, context=100, seed=0, epoch=0), strict=False
        )
    ]
    assert seen[0][0].loss == pytest.approx(
        sum(f.unweighted.item() for f in found) / sum(f.n for f in found), rel=1e-5
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
    real, calls = training_loss.sum_losses, []

    def overflowing(*arguments, **more):
        calls.append(1)
        found = real(*arguments, **more)
        loss = found.weighted
        # a finite loss whose gradient is none, as where a product leaves the range of float16
        return found._replace(weighted=loss + torch.sqrt(loss - loss)) if len(calls) == 3 else found

    monkeypatch.setattr(step, "sum_losses", overflowing)
    folder, seen = run(dtype="float16")
    assert seen[-1][0].update == 12
    assert all(torch.isfinite(p).all() for p in weights(folder, state.LAST).values())


@needs_muon
@pytest.mark.parametrize("gradients", [(math.inf, 0.0), (math.inf, -math.inf)])
def test_float16_with_muon_skips_an_update_of_all_weights(run, monkeypatch, gradients):
    """A matrix of a block overflows in the micro-batches of the second update; embeddings do not."""
    real, calls, steps = training_loss.sum_losses, [], {"AdamW": 0, "Muon": 0}

    def overflowing(network, *arguments, **more):
        calls.append(1)
        found = real(network, *arguments, **more)
        if len(calls) not in (3, 4):
            return found
        matrix = network.transformer.h[0].mlp.c_fc.weight
        none = matrix - matrix.detach()
        none.register_hook(lambda gradient: torch.full_like(gradient, gradients[len(calls) - 3]))
        return found._replace(weighted=found.weighted + none.sum())

    for optimizer in (torch.optim.AdamW, torch.optim.Muon):

        def counted(self, *arguments, own=optimizer.step, name=optimizer.__name__, **more):
            steps[name] += 1
            return own(self, *arguments, **more)

        monkeypatch.setattr(optimizer, "step", counted)
    monkeypatch.setattr(step, "sum_losses", overflowing)
    folder, seen = run(dtype="float16", optimizer="muon", gradient_accumulation=2, max_updates=4)
    assert seen[-1][0].update == 4
    assert steps == {"AdamW": 3, "Muon": 3}
    assert all(torch.isfinite(p).all() for p in weights(folder, state.LAST).values())


def test_muon_of_an_old_torch_is_refused_in_one_line(monkeypatch):
    monkeypatch.delattr(torch.optim, "Muon", raising=False)
    network = transformer.GPT(ModelConfig(language="orbits", vocab_size=40, n_layer=1, n_head=2, n_embd=16))
    with pytest.raises(CrystallmError, match=r"optimizer = 'muon' needs torch 2.9 or newer, this is .*adamw"):
        step.make_optimizers(network, Recipe(max_updates=1, optimizer="muon"))
    assert len(step.make_optimizers(network, Recipe(max_updates=1))) == 1


def test_light_tokens_teach_less_and_are_told_as_they_are(run, monkeypatch):
    from crystallm.orbits.language import OrbitsLanguage

    fields = {"max_updates": 1, "validate_every": 1.0, "weight_decay": 0.0}
    plain, seen = run("plain", **fields)
    monkeypatch.setattr(OrbitsLanguage, "low_weight_ids", tuple(range(40)))
    nothing, told = run("nothing", low_weight=0.0, **fields)
    assert told[0][0].loss == pytest.approx(seen[0][0].loss)
    torch.manual_seed(0)
    fresh = transformer.GPT(load.load(plain / state.LAST, device="cpu").config)
    before = dict(fresh.named_parameters())
    assert all(torch.equal(w, before[name]) for name, w in weights(nothing, state.LAST).items())
    monkeypatch.setattr(OrbitsLanguage, "low_weight_ids", tuple(range(20)))
    some, _ = run("some", low_weight=0.5, **fields)
    found = [weights(place, state.LAST)["transformer.wte.weight"] for place in (plain, some)]
    assert not torch.equal(*found)


@needs_muon
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


@needs_muon
def test_muon_moves_the_matrices_of_blocks_alone():
    network = transformer.GPT(ModelConfig(language="orbits", vocab_size=40, n_layer=1, n_head=2, n_embd=16))
    adamw, muon = step.make_optimizers(network, Recipe(max_updates=1, optimizer="muon"))
    names = {id(p): name for name, p in network.named_parameters()}
    moved = [{names[id(p)] for g in o.param_groups for p in g["params"]} for o in (adamw, muon)]
    block = "transformer.h.0."
    layers = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    assert moved[1] == {f"{block}{layer}.weight" for layer in layers}
    assert moved[0] == set(names.values()) - moved[1]
