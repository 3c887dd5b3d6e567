"""Fields of a recipe: what each does to a run."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from crystallm.datasets import shards
from crystallm.errors import CheckpointError, InputError
from crystallm.network.transformer import TransformerBlock
from crystallm.training import distributed, loop, state
from crystallm.training.loss import Losses
from crystallm.training.recipe import Recipe
from real_crystals import write_split
from tiny_runs import lines, weights, write_data


def test_a_budget_of_tokens_ends_with_it(run):
    folder, seen = run(max_tokens=1000)
    assert [p.share for p, _ in seen] == [min(1.0, p.tokens / 1000) for p, _ in seen]
    assert seen[-2][0].tokens < 1000 <= seen[-1][0].tokens
    assert lines(folder)[-1]["share"] == 1.0


@pytest.mark.parametrize("stop", [None, 9])
def test_patience_ends_a_run_that_no_longer_learns(run, monkeypatch, stop):
    heard = iter([3.0, 2.0, 2.5, 2.0, 1.0, 9.0])
    monkeypatch.setattr(loop, "validate", lambda *_, **__: Losses(1.0, next(heard)))
    fields = {"max_updates": 30, "validate_every": 0.1, "patience": 2}
    if stop:
        with pytest.raises(KeyboardInterrupt):
            run(stop=stop, **fields)
    folder, seen = run(resume=stop is not None, **fields)
    assert [line["val_loss_crystal"] for line in lines(folder)] == [3.0, 2.0, 2.5, 2.0]
    end = seen[-1][0]
    assert (end.update, end.stale, end.best) == (12, 2, 2.0)
    _, seen = run(resume=True)
    assert seen == []  # it has ended


def test_the_last_model_is_kept_beside_the_best(run, monkeypatch):
    heard = iter([3.0, 2.0, 4.0, 5.0])
    monkeypatch.setattr(loop, "validate", lambda *_, **__: Losses(1.0, next(heard)))
    folder, _ = run()
    best, last = weights(folder, state.MODEL), weights(folder, state.LAST)
    assert not torch.equal(best["transformer.wte.weight"], last["transformer.wte.weight"])


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # torch's own tracing
def test_compiled_blocks_teach_the_same(run, monkeypatch):
    graphs = []

    def backend(graph, _example):
        graphs.append(graph)
        return graph.forward

    def traced(block, **options):  # torch's tracing without its C++ code
        torch.nn.Module.compile(block, backend=backend, **options)

    monkeypatch.setattr(TransformerBlock, "compile", traced, raising=False)
    plain, _ = run("plain")
    assert graphs == []
    compiled, _ = run("compiled", compile=True)
    assert 1 <= len(graphs) <= 3  # of all layers and window sizes
    assert lines(compiled) == lines(plain)


@pytest.mark.parametrize("windows", ["starts", "random"])
def test_pieces_of_the_stream_teach_and_a_stopped_run_goes_on(run, windows):
    fields = {"packing": windows, "dropout": 0.1, "context": 60}
    whole, _ = run("whole", **fields)
    with pytest.raises(KeyboardInterrupt):
        run(stop=8, **fields)
    folder, seen = run(resume=True)
    assert lines(folder) == lines(whole)
    assert seen[-1][0].tokens == 12 * 120


def test_older_data_are_mixed_in(run, tmp_path):
    older = write_data(tmp_path / "older", 1)
    folder, _ = run(replay_dataset=str(older), replay_share=0.4)
    assert state.read_recipe(folder).replay_dataset == str(older)
    other = write_data(tmp_path / "other", 1, language="cif")
    with pytest.raises(
        InputError, match="is in 'cif' with 40 tokens, the data set in 'orbits' with 40: prep"
    ):
        run("third", replay_dataset=str(other))
    with pytest.raises(InputError, match="no data set in"):
        run("third", replay_dataset="nowhere")
    assert not (tmp_path / "third").exists()


TOLD = {"max_tokens": 3000, "augmentation_share": 0.5}


def tell(data, n, n_crystals=40):
    """So many other descriptions of each training crystal."""
    rng = np.random.default_rng(n)
    write_split(data, shards.EQUIVALENTS, [rng.integers(40, size=20) for _ in range(n * n_crystals)])


def test_equivalents_are_drawn_and_a_stopped_run_goes_on(run, tmp_path):
    tell(tmp_path / "data", 2)
    whole, seen = run("whole", **TOLD)
    assert seen[-1][0].share == 1.0
    plain, _ = run("plain", max_tokens=3000)
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
        InputError, match=r"no split 'equivalents' in .* `crystallm prepare --augmentations 6`"
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
        (
            {"max_updates": 5},
            "augmentation_share=0.5 needs a schedule in tokens: give max_tokens, or augm",
        ),
        (
            {"max_minutes": 5},
            "augmentation_share=0.5 needs a schedule in tokens: give max_tokens, or augm",
        ),
        ({"max_tokens": 5, "packing": "random"}, "augmentation_share=0.5 needs packing packed"),
        ({"max_tokens": 5, "packing": "starts"}, "augmentation_share=0.5 needs packing packed"),
        ({"max_tokens": 5, "replay_dataset": "older"}, "0.5 and replay_dataset exclude each other"),
    ],
)
def test_what_equivalents_do_not_go_with(fields, message):
    with pytest.raises(ValueError, match=message):
        Recipe(augmentation_share=0.5, **fields)


def test_a_recipe_for_another_language_is_refused(run, tmp_path):
    run(language="orbits", max_updates=1)
    with pytest.raises(InputError, match="is in the language 'orbits', and the recipe for 'cif': prepare"):
        run("other", language="cif")


def test_rare_groups_need_crystals_of_the_language(run):
    with pytest.raises(InputError, match="has no space group"):
        run(rare_group_exponent=0.5)


def test_the_architecture_of_a_model_is_known(run):
    folder, _ = run(max_updates=1)
    assert loop.architecture_of(str(folder / "model")) == {
        "form": "gpt2", "n_layer": 1, "n_head": 2, "n_embd": 16, "bias": False, "context": 100,
    }  # fmt: skip
    with pytest.raises(CheckpointError, match="nowhere"):
        loop.architecture_of("nowhere")


def test_one_process_is_a_world_of_its_own():
    with distributed.processes("cpu") as world:
        assert (world.rank, world.size, world.first) == (0, 1, True)
        assert world.from_first(math.pi) == math.pi
        with pytest.raises(ValueError, match="as it is"), world.together():
            raise ValueError("as it is")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"packing": "random"}, "relatives_share=0.5 needs packing packed"),
        ({"replay_dataset": "older"}, "relatives_share=0.5 and replay_dataset exclude each other"),
        ({"condition": "density"}, "relatives_share=0.5 and condition exclude each other"),
        ({"augmentation_share": 0.5}, "relatives_share=0.5 and augmentation_share exclude each other"),
    ],
)
def test_what_relatives_do_not_go_with(fields, message):
    with pytest.raises(ValueError, match=message):
        Recipe(relatives_share=0.5, max_tokens=5, **fields)


def test_data_without_relatives_are_refused_with_the_remedy(run):
    with pytest.raises(InputError, match="has no relatives: make them with `crystallm references relatives"):
        run(language="orbits", relatives_share=0.5, max_updates=1)
