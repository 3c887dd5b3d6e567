"""Networks learn with the values of properties, some of them hidden or missing."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from crystallm.datasets import packing
from crystallm.errors import InputError
from crystallm.models.load import load
from crystallm.storage import run_folder
from crystallm.training import conditions
from crystallm.training.recipe import Recipe
from real_crystals import write_split
from tiny_runs import TINY, lines, weights, write_data

MORE = {"condition": ("density", "gap"), "condition_dropout": 0.3}


def with_properties(folder, seed=0):
    """Random data whose crystals have a density, and half of them a gap."""
    write_data(folder, seed)
    facts = json.loads((folder / run_folder.FACTS).read_text())
    facts["properties"] = {"density": "g/cm^3", "gap": "eV"}
    (folder / run_folder.FACTS).write_text(json.dumps(facts))
    for split in ("train", "val"):
        n = len(np.load(folder / f"{split}.idx.npy")) - 1
        values = np.random.default_rng(n).normal(4.0, 2.0, size=(n, 2))
        values[::2, 1] = np.nan
        np.save(folder / f"{split}.properties.npy", values)
    return folder


@pytest.fixture
def data(tmp_path):
    return with_properties(tmp_path / "rich")


def test_the_model_keeps_names_units_and_scales(run, data):
    folder, _ = run(data=data, **MORE)
    network = load(folder / "model", device="cpu")
    values = np.load(data / "train.properties.npy")
    density, gap = network.config.condition_scales
    assert (density.name, density.unit, gap.name, gap.unit) == ("density", "g/cm^3", "gap", "eV")
    assert density.mean == pytest.approx(values[:, 0].mean())
    assert gap.deviation == pytest.approx(np.nanstd(values[:, 1]))
    assert gap.lowest == pytest.approx(np.nanmin(values[:, 1]))
    assert network.transformer.conditions.weight.abs().max() > 0


def test_a_network_from_scratch_learns_what_the_values_decide(run, tmp_path):
    folder = with_properties(tmp_path / "decided")
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        values = np.load(folder / f"{split}.properties.npy")
        dense = values[:, 0] > 4
        write_split(folder, split, [20 * high + rng.integers(20, size=30) for high in dense])
    trained, _ = run(data=folder, condition=("density",), max_updates=80)
    network = load(trained / "model", device="cpu")
    start = torch.zeros(2, 1, dtype=torch.long)
    with torch.no_grad():
        low, high = network(start, conditions=torch.tensor([[[1.0]], [[7.0]]]))[:, 0].softmax(-1)
    assert low[:20].sum() > 0.9
    assert high[20:40].sum() > 0.9


def test_scales_of_a_model_are_read_without_its_weights(run, data):
    plain, _ = run("before", data=data, condition=("density",))
    for shard in (plain / "model").glob("*.safetensors"):
        shard.unlink()
    recipe = Recipe(**TINY, condition="density", init_from=str(plain / "model"))
    values = np.zeros((3, 1))
    (scale,) = conditions.make_scales(recipe, data, values, plain / "new", resume=False)
    assert scale.mean == pytest.approx(np.load(data / "train.properties.npy")[:, 0].mean())


def test_a_killed_run_with_conditions_resumes_to_the_bit(run, data):
    whole, _ = run("whole", data=data, **MORE)
    with pytest.raises(KeyboardInterrupt):
        run("cut", data=data, stop=8, **MORE)
    cut, _ = run("cut", data=data, resume=True, **MORE)
    assert lines(cut) == lines(whole)
    ours, theirs = weights(cut, "last"), weights(whole, "last")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_fine_tuning_starts_from_the_model_and_adds_conditions(run, data):
    plain, _ = run("plain", data=data)
    frozen = {"learning_rate": 1e-12, "init_from": str(plain / "model")}
    folder, _ = run("tuned", data=data, condition=("density",), **frozen)
    tuned, before = weights(folder, "last"), weights(plain, "model")
    assert set(tuned) - set(before) == {"transformer.conditions.weight"}
    for name, tensor in before.items():
        torch.testing.assert_close(tuned[name], tensor, rtol=0, atol=1e-6)
    again, _ = run(
        "again", data=data, condition=("gap", "density"), **frozen | {"init_from": str(folder / "last")}
    )
    torch.testing.assert_close(
        weights(again, "last")["transformer.conditions.weight"][1],
        tuned["transformer.conditions.weight"][0], rtol=0, atol=1e-6,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        (("colour",), "no property 'colour' in the data set .*: there are density, gap"),
        (("flat",), "condition 'flat': fewer than two different values"),
    ],
)
def test_impossible_conditions_are_reported_in_one_line(run, data, condition, message):
    if condition == ("flat",):
        facts = json.loads((data / run_folder.FACTS).read_text())
        facts["properties"] = {"density": "", "flat": ""}
        (data / run_folder.FACTS).write_text(json.dumps(facts))
        for split in ("train", "val"):
            values = np.load(data / f"{split}.properties.npy")
            values[:, 1] = np.nan
            np.save(data / f"{split}.properties.npy", values)
    with pytest.raises(InputError, match=message):
        run(data=data, condition=condition)


def test_data_prepared_before_there_were_properties_say_so(run):
    with pytest.raises(InputError, match="no property 'density' .*: it has none: prepare it again"):
        run(condition=("density",))


def test_a_recipe_takes_names_with_commas_and_rejects_windows_of_parts():
    assert Recipe(**TINY, condition="density, gap").condition == ("density", "gap")
    with pytest.raises(ValueError, match="needs packing packed"):
        Recipe(**TINY, condition="density", packing="starts")
    with pytest.raises(ValueError, match="twice"):
        Recipe(**TINY, condition="density,density")


def test_a_share_of_the_values_is_hidden():
    values = np.ones((50, 40, 2), dtype=np.float32)
    hidden = np.isnan(packing.hide(values, 0.2, np.random.default_rng(0)))
    assert hidden.all(axis=2).mean() == pytest.approx(0.2 + 0.8 * 0.04, abs=0.03)
    assert hidden.mean() == pytest.approx(0.2 + 0.8 * 0.2, abs=0.03)
    assert not np.isnan(packing.hide(values, 0.0, np.random.default_rng(0))).any()


def test_windows_hold_the_values_of_their_crystals():
    values = np.arange(8.0).reshape(4, 2)
    gathered = packing.gather(values, [[2], [0, 3]])
    np.testing.assert_array_equal(gathered[0], [[4, 5], [np.nan, np.nan]])
    np.testing.assert_array_equal(gathered[1], [[0, 1], [6, 7]])
