"""One measurement of speed, in a process of its own: see `speed.py`, which runs them one after the other.

    python bench/pieces.py decode '{"language": "orbits", "parquet": "corpus.parquet", "batch": 128, ...}'

Prints one JSON line a run, behind the word JSON. Knows how each thing is measured; refuses to know which are,
what they are compared with, and what is aimed at.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import crystallm  # noqa: F401 - before torch: its threads are told how to wait

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

Found = dict[str, Any]
HERE = Path(__file__).parent
TINY = {"n_layer": 2, "n_head": 2, "n_embd": 64}


def _model(options: Found) -> Any:
    """The bundled model, or the small network of the paper with random weights, as the options want it."""
    import decode
    import torch

    from crystallm.models.load import load_model

    torch.set_num_threads(options.get("threads", 1))
    device = options.get("device", "cpu")
    if options["language"] == "cif":
        model = decode.random_model(**(TINY if options.get("tiny") else {}))
        model.network.to(device)
        if device == "cpu":
            model.network.pack()
    else:
        model = load_model("default", device=device)
    model.network.to(getattr(torch, options.get("dtype", "float32")))
    return model


def decoding(options: Found) -> Iterator[Found]:
    """This engine, `n` crystals in all; without rules each has so many `tokens`."""
    import decode

    if (n_processes := options.get("processes", 1)) > 1:
        yield from _beside(options, n_processes)
        return
    model = _model(options)
    kwargs = {"max_new_tokens": options["tokens"]} if _endless(options) else {}
    asked = decode.formulas(options["parquet"], options.get("formulas", 64))
    n_formulas = min(len(asked), options["n"])
    each = max(1, options["n"] // n_formulas)
    decode.ours(model, asked[:4], 1, 4, options["constraints"], **kwargs | {"max_new_tokens": 64})
    for seed in range(options["repeats"]):
        start = time.time()
        with _watched(options) as parts:
            found = decode.ours(
                model,
                asked[:n_formulas],
                each,
                options["batch"],
                options["constraints"],
                seed=seed + options.get("seed", 0),
                **kwargs,
            )
        if str(options.get("device")).startswith("cuda"):
            import torch

            found["memory"] = torch.cuda.max_memory_allocated() / 2**30
        yield found | parts | {"began": start, "ended": time.time()}


def _endless(options: Found) -> bool:
    """Whether texts have no end of their own: random weights, and no rules."""
    return options["language"] == "cif" and options["constraints"] == "none"


def _beside(options: Found, n_processes: int) -> Iterator[Found]:
    """Processes side by side, from the first's beginning to the last's end, their starts not counted."""
    own = options | {"processes": 1, "n": options["n"] // n_processes, "repeats": 1, "threads": 1}
    for repeat in range(options["repeats"]):
        started = [_start("decode", own | {"seed": 1000 * number + repeat}) for number in range(n_processes)]
        runs = [_finished(process)[0] for process in started]
        names = ("crystals", "cpu", "tokens", "read", "rows", "passes", "memory")
        yield {name: sum(run[name] for run in runs) for name in names} | {
            "seconds": max(run["ended"] for run in runs) - min(run["began"] for run in runs)
        }


def _start(kind: str, options: Found) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, __file__, kind, json.dumps(options)], stdout=subprocess.PIPE, text=True
    )


def _finished(process: subprocess.Popen[str]) -> list[Found]:
    out, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"a process of this measurement ended with code {process.returncode}")
    return read(out)


def read(out: str) -> list[Found]:
    """The runs that a measurement printed."""
    return [json.loads(line[5:]) for line in out.splitlines() if line.startswith("JSON ")]


# -- where the time goes -------------------------------------------------------------------------------------


class _watched:  # noqa: N801 - used like a function
    """CPU seconds of linear layers, attention, rules, choosing and bookkeeping, if the options want them."""

    def __init__(self, options: Found) -> None:
        self.options = options
        self.seconds: dict[str, float] = defaultdict(float)
        self.found: Found = {}
        self.stack = ExitStack()

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, its seconds counted under a name."""

        def counting(*args: Any, **kwargs: Any) -> Any:
            start = time.process_time()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds[name] += time.process_time() - start

        return counting

    def __enter__(self) -> Found:
        if not self.options.get("profile"):
            return self.found
        from crystallm.generation import generator
        from crystallm.network import kernels, ragged
        from crystallm.sampling import decoder, token_sampler

        def patch(where: Any, name: str, part: str) -> None:
            self.stack.enter_context(mock.patch.object(where, name, self.timed(part, getattr(where, name))))

        for maker in ("plain_linear", "packed_linear"):
            make = getattr(ragged, maker)

            def made(*args: Any, make: Any = make) -> Any:
                return self.timed("linear", make(*args))

            self.stack.enter_context(mock.patch.object(ragged, maker, made))
        make = ragged._torch_attention  # noqa: SLF001 - where the compiled one is not used

        def attending(*args: Any) -> Any:
            return self.timed("attention", make(*args))

        self.stack.enter_context(mock.patch.object(ragged, "_torch_attention", attending))
        patch(kernels.RowAttention, "__call__", "attention")
        patch(ragged, "plan_runs", "plan of a pass")
        patch(decoder, "token_log_probs", "choosing")
        self.stack.enter_context(
            mock.patch.object(
                token_sampler.TokenSampler,
                "draw",
                self.timed("choosing", token_sampler.TokenSampler.draw),
            )
        )
        patch(ragged.RaggedNetwork, "__init__", "packing")
        grammar_of = generator.Generator._grammar  # noqa: SLF001 - the one place where grammars come from

        def grammar(*args: Any) -> Any:
            found = self.timed("rules", grammar_of)(*args)
            return None if found is None else _Rules(found, self.timed)

        self.stack.enter_context(mock.patch.object(generator.Generator, "_grammar", grammar))
        return self.found

    def __exit__(self, *_: object) -> None:
        self.stack.close()
        if self.seconds:
            self.found["parts"] = dict(self.seconds)


class _Rules:
    """Rules whose states are timed."""

    def __init__(self, rules: Any, timed: Callable[[str, Any], Any]) -> None:
        self.rules, self.timed = rules, timed

    def start(self, prompt: Sequence[int]) -> Any:
        """A fresh state."""
        state = self.timed("rules", self.rules.start)(prompt)
        return _State(self.timed("rules", state.allowed), self.timed("rules", state.advance))


class _State:
    """A state of the rules whose two verbs are given."""

    def __init__(self, allowed: Any, advance: Any) -> None:
        self.allowed, self.advance = allowed, advance


def products(options: Found) -> Iterator[Found]:
    """What products allow: tokens a second of the linear layers alone, and at the peak of large products."""
    import torch

    from crystallm.network import ragged
    from crystallm.training import flops

    model = _model(options)
    network = model.network
    reader = ragged.RaggedNetwork(network)
    n, width, weights = options["batch"], network.config.n_embd, network.num_parameters()
    dtype = getattr(torch, options["dtype"])
    x, y = torch.randn(n, width, dtype=dtype), torch.randn(n, width, dtype=dtype)
    peak, _ = flops.peak(torch.device("cpu"), options["dtype"])
    with torch.inference_mode():
        for _ in range(options["repeats"] + 1):
            start, cpu = time.perf_counter(), time.process_time()
            for _ in range(20):
                for block in reader._blocks:  # noqa: SLF001 - the products that decoding calls
                    block.c_attn(x)
                    block.c_proj(y)
                    block.narrow(block.activate(block.wide(x)))
                reader.logits(x)
            seconds, used = time.perf_counter() - start, time.process_time() - cpu
            yield {
                "crystals": 0,
                "seconds": seconds,
                "cpu": used,
                "tokens": 20 * n,
                "peak_tokens": peak / (2 * weights),
            }


# -- others --------------------------------------------------------------------------------------------------


def transformers(options: Found) -> Iterator[Found]:
    """`GPT2LMHeadModel.generate` with the same weights, with or without its cache."""
    import decode

    model = _model(options)
    decode.theirs(model, 4, options["batch"], cached=options["cached"])
    for _ in range(options["repeats"]):
        yield decode.theirs(model, options["tokens"], options["batch"], cached=options["cached"])


def vllm(options: Found) -> Iterator[Found]:
    """The same weights in vLLM, in an environment of its own."""
    import decode

    model = _model(options)
    with tempfile.TemporaryDirectory() as folder:
        decode.to_transformers(model.network.float()).save_pretrained(folder)
        ours = {"PYTHONPATH", "OMP_NUM_THREADS", "OMP_WAIT_POLICY"}
        environment = {name: value for name, value in os.environ.items() if name not in ours}
        done = subprocess.run(
            [options["python"], str(HERE / "vllm_side.py"), folder, json.dumps(options)],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            env=environment,
        )
    yield from read(done.stdout)


# -- the command ---------------------------------------------------------------------------------------------


def command(options: Found) -> Iterator[Found]:
    """`crystallm generate --requests` in processes that write, judge and keep, starts counted."""
    import decode

    from crystallm.crystallography.formula import cell

    asked = decode.formulas(options["parquet"], options.get("formulas", 64))
    each = max(1, options["n"] // len(asked))
    for repeat in range(options["repeats"]):
        with tempfile.TemporaryDirectory() as name:
            place = Path(name)
            cells = [f"{formula},{cell(formula).z}" for formula in asked]  # as written: Z is not weighed
            (place / "asked.csv").write_text("\n".join(["formula,z", *cells]) + "\n", encoding="utf-8")
            start = time.perf_counter()
            subprocess.run(
                [
                    *(sys.executable, "-m", "crystallm", "generate", "--quiet", "-n", str(each)),
                    *("--requests", str(place / "asked.csv"), "--out", str(place / "out"), "--no-write-cifs"),
                    *("--workers", str(options["processes"]), "--batch-size", str(options["batch"])),
                    *("--device", options.get("device", "cpu"), "--dtype", options["dtype"]),
                    *("--seed", str(repeat)),
                ],
                check=True,
            )
            yield {"crystals": each * len(asked), "seconds": time.perf_counter() - start}


_STAGES = """
import json, sys, time
began = float(sys.argv[1])
stages, last = {}, began
def stage(name):
    global last
    now = time.time()
    stages[name], last = now - last, now
stage("python")
import crystallm.cli
stage("command line")
import torch
stage("torch")
from crystallm.models.load import load_model
from crystallm.generation.generator import Generator, Settings
from crystallm.generation.request import Request
model = load_model("default", device="cpu")
stage("model")
import pymatgen.core, spglib, crystallm.crystals.crystal, crystallm.grammar.factory, crystallm.sampling.sample
stage("libraries of crystals")
(found,) = Generator(model, [Request(formula="TiO2", n=1)], Settings()).generate([0])
stage("writing")
found[0].validity
stage("judging")
print("JSON " + json.dumps({"crystals": 1, "seconds": last - began, "parts": stages}))
"""


def first(options: Found) -> Iterator[Found]:
    """From a cold shell to the first crystal, judged: the command, and the same in stages."""
    for _ in range(options["repeats"]):
        start = time.perf_counter()
        subprocess.run(
            [
                *(sys.executable, "-m", "crystallm", "generate", "TiO2", "--z", "1", "-n", "1"),
                *("--seed", "0", "--device", "cpu", "--json"),
            ],
            check=True,
            stdout=subprocess.PIPE,
        )
        seconds = time.perf_counter() - start
        done = subprocess.run(
            [sys.executable, "-c", _STAGES, str(time.time())], check=True, stdout=subprocess.PIPE, text=True
        )
        yield read(done.stdout)[0] | {"seconds": seconds}


KINDS: dict[str, Callable[[Found], Iterator[Found]]] = {
    "decode": decoding,
    "products": products,
    "transformers": transformers,
    "vllm": vllm,
    "command": command,
    "first": first,
}


def main(kind: str, options: str) -> None:
    """Run one measurement, and tell each run as it ends."""
    for found in KINDS[kind](json.loads(options)):
        print("JSON " + json.dumps(found), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
