"""Two processes learn what one does; runs that are killed, at any moment and of any number, end the same."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from crystallm.errors import CrystallmError
from crystallm.models import load
from crystallm.storage import run_folder
from crystallm.training import loop, state, step
from crystallm.training import metrics as training_metrics
from crystallm.training.recipe import Recipe
from real_crystals import write_split

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="forkserver and SIGKILL are of POSIX")

TINY = {
    "n_layer": 1, "n_head": 2, "n_embd": 16, "context": 100, "batch_tokens": 128, "warmup": 3,
    "dtype": "float32", "learning_rate": 1e-2, "dropout": 0.0,
}  # fmt: skip
CONTEXT = multiprocessing.get_context("forkserver" if sys.platform != "win32" else "spawn")
if sys.platform != "win32":
    # One process imports torch, once, and all others are forked from it.
    CONTEXT.set_forkserver_preload(["crystallm.training", "safetensors.torch", "torch._dynamo"])


@pytest.fixture
def data(tmp_path):
    """60 random texts to train on, 8 to validate."""
    rng = np.random.default_rng(0)
    for split, n in (("train", 60), ("val", 8)):
        texts = [rng.integers(40, size=rng.integers(2, 80)) for _ in range(n)]
        write_split(tmp_path / "data", split, texts)
    (tmp_path / "data" / run_folder.FACTS).write_text(json.dumps({"language": "orbits", "vocab_size": 40}))
    return tmp_path / "data"


def work(where, recipe, data, folder, resume, failing, told):
    """One process of a run. `failing`: the update at which it fails, and how."""
    os.environ |= where
    torch.set_num_threads(1)
    training_metrics.plot = lambda _: None
    update, how = failing
    if how == "raise":
        real, calls = step.sum_losses, []

        def broken(*arguments, **more):
            calls.append(1)
            if len(calls) == update:
                raise ValueError("this one\nfails")
            return real(*arguments, **more)

        step.sum_losses = broken
    if how == "die":
        real_step = loop.train_step

        def dying(run, progress, *arguments):
            if progress.update == update:
                os._exit(9)
            return real_step(run, progress, *arguments)

        loop.train_step = dying

    def report(progress, _):
        told.put((progress.update, progress.loss))

    try:
        loop.train(Recipe(**recipe), data, folder, device="cpu", resume=resume, report=report)
    except CrystallmError as error:
        told.put(f"{where.get('RANK', '0')}: {type(error).__name__}: {error}")
        told.close()
        told.join_thread()
        os._exit(1)


def launch(n, recipe, data, folder, *, resume=False, failing=None):
    """Train with n processes; what they tell."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    told, processes = CONTEXT.Queue(), []
    for rank in range(n):
        where = {
            "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(n), "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port,
        }  # fmt: skip
        mine = failing[1:] if failing and failing[0] == rank else (0, "")
        arguments = (where, recipe, str(data), str(folder), resume, mine, told)
        processes.append(CONTEXT.Process(target=work, args=arguments))
        processes[-1].start()
    found = []
    while any(process.is_alive() for process in processes) or not told.empty():
        while not told.empty():
            found.append(told.get())
        time.sleep(0.01)
    for process in processes:
        process.join()
    return found


def weights(folder, kind=state.LAST):
    return dict(load.load(folder / kind, device="cpu").named_parameters())


def metrics(folder):
    timed = "seconds", "tokens_per_second"
    return [{k: v for k, v in line.items() if k not in timed} for line in training_metrics.read(folder)]


def test_two_processes_learn_what_one_does_with_twice_the_micro_batches(tmp_path, data):
    recipe = TINY | {"max_updates": 20, "validate_every": 0.25}
    one = launch(1, recipe | {"gradient_accumulation": 4}, data, tmp_path / "one")
    two = launch(2, recipe | {"gradient_accumulation": 2}, data, tmp_path / "two")
    assert [update for update, _ in one] == [update for update, _ in two] == list(range(1, 21))
    assert [loss for _, loss in two] == pytest.approx([loss for _, loss in one], abs=1e-5)
    first, second = metrics(tmp_path / "one"), metrics(tmp_path / "two")
    assert [line["tokens"] for line in first] == [line["tokens"] for line in second]
    assert [line["val_loss"] for line in first] == pytest.approx([x["val_loss"] for x in second], abs=2e-5)
    ours, theirs = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-4) for name in ours)


def test_a_run_goes_on_with_another_number_of_processes(tmp_path, data):
    recipe = TINY | {"gradient_accumulation": 2, "max_updates": 8, "validate_every": 0.5, "dropout": 0.2}
    launch(1, recipe, data, tmp_path / "whole")
    found = launch(2, recipe | {"gradient_accumulation": 1}, data, tmp_path / "run", failing=(1, 6, "die"))
    assert metrics(tmp_path / "run")[-1]["update"] == 4
    (said,) = [line for line in found if isinstance(line, str)]
    assert said.startswith("0: CrystallmError: another process of this run has ended")
    assert "\n" not in said
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training_metrics, "plot", lambda _: None)
        loop.train(Recipe(max_updates=1), data, tmp_path / "run", device="cpu", resume=True)
    whole, parts = metrics(tmp_path / "whole"), metrics(tmp_path / "run")
    assert [line["update"] for line in parts] == [4, 8]
    assert [line["val_loss"] for line in whole] == pytest.approx([x["val_loss"] for x in parts], abs=2e-5)
    (said,) = {line.partition(": ")[2] for line in launch(3, recipe, data, tmp_path / "run", resume=True)}
    assert said.startswith("InputError: ")
    assert "has 2 micro-batches an update, which 3 processes cannot share evenly" in said
    assert said.endswith("start as many as divide it (1, 2)")


def test_a_failure_of_one_process_ends_all_with_the_same_line(tmp_path, data):
    found = launch(2, TINY | {"max_updates": 8}, data, tmp_path / "run", failing=(1, 3, "raise"))
    said = sorted(line for line in found if isinstance(line, str))
    expected = "CrystallmError: process 1: internal error, ValueError: this one fails"
    assert said == [f"0: {expected}", f"1: {expected}"]


def test_what_is_asked_wrongly_is_one_line_of_all(tmp_path, data):
    found = launch(2, TINY | {"max_updates": 8}, tmp_path / "nowhere", tmp_path / "run")
    assert len({line.partition(": ")[2] for line in found}) == 1
    assert "InputError: no data set in" in found[0]


def test_torchrun_starts_the_command(tmp_path, data):
    (tmp_path / "recipe.yaml").write_text(json.dumps(TINY | {"max_updates": 3}))
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m",
        "crystallm", "train", str(tmp_path / "recipe.yaml"), "--dataset", str(data), "--out",
        str(tmp_path / "run"), "--device", "cpu", "--json",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["update"] == 3
    assert metrics(tmp_path / "run")[-1]["update"] == 3


# --- killed at any moment ---

FULL = TINY | {
    "max_updates": 24, "validate_every": 0.125, "dropout": 0.2, "gradient_accumulation": 2,
}  # fmt: skip


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_run_that_is_killed_at_random_moments_ends_as_one_that_is_not(tmp_path, data, dtype):
    recipe = FULL | {"dtype": dtype}
    launch(1, recipe, data, tmp_path / "whole")
    rng, folder, kills = random.Random(dtype), tmp_path / "run", 0
    while True:
        told = CONTEXT.Queue()
        resume = (folder / state.STATE).exists()
        arguments = ({}, recipe, str(data), str(folder), resume, (0, ""), told)
        process = CONTEXT.Process(target=work, args=arguments)
        process.start()
        if kills < 5:
            while told.empty() and process.is_alive():
                time.sleep(0.001)  # until it has learned something: from there on anything may be going on
            process.join(rng.uniform(0.0, 0.05))
            if process.is_alive():
                process.kill()
                kills += 1
        process.join()
        if process.exitcode == 0:
            break
    assert kills >= 2
    assert metrics(folder) == metrics(tmp_path / "whole")
    for kind in (state.MODEL, state.LAST):
        found, wanted = weights(folder, kind), weights(tmp_path / "whole", kind)
        assert [name for name in wanted if not torch.equal(found[name], wanted[name])] == []
    assert sorted(path.name for path in Path(folder).iterdir()) == sorted(
        [state.LAST, training_metrics.METRICS, state.MODEL, state.RECIPE, state.STATE]
    )
