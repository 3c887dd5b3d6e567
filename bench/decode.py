"""Crystals a second of CPU time: this engine, and `transformers` without a cache with the same weights.

    python bench/decode.py cif --parquet corpus.parquet --batch 1 8 32 128 --dtype bfloat16
    python bench/decode.py orbits --parquet corpus.parquet --batch 1 32 128
    python bench/decode.py cif --parquet corpus.parquet --theirs

The formulas are 64 of the corpus's val split, evenly spread. `cif`: the small network of the paper with
random weights, under the rules or without; `orbits`: the bundled model. Each line is one run on one thread:
crystals and tokens a second of CPU time of this process, so that waiting for others does not count; tokens
that the network read for each that was kept (what rules take back is read for nothing); peak memory of the
process. A short run before warms up. `--theirs` writes so many tokens a crystal (`--tokens`), in float32, by
`GPT2LMHeadModel.generate(use_cache=False)`.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch

from crystallm.generation.generator import Generator
from crystallm.generation.request import Request, SamplingOptions
from crystallm.language import get_language
from crystallm.models.load import load_model
from crystallm.models.model import Model
from crystallm.network import ragged
from crystallm.network.config import ModelConfig
from crystallm.network.transformer import GPT

if TYPE_CHECKING:
    from collections.abc import Sequence

PROMPT = [20, 89, 97, 120]


def random_model(**size: Any) -> Model:
    """The paper's small network in `cif` with random weights; other sizes by name."""
    torch.manual_seed(0)
    network = GPT(ModelConfig(language="cif", vocab_size=371, context=1024, **size)).eval()
    return Model("random", network, get_language("cif"), network.config)


def formulas(path: str, n: int) -> list[str]:
    """Formulas of the corpus's val split, evenly spread; or those of a .txt file, one a line."""
    if path.endswith(".txt"):
        return Path(path).read_text(encoding="utf-8").split()[:n]
    from pyarrow import parquet

    table = parquet.read_table(path, columns=["reduced_formula", "split"]).to_pylist()
    val = [row["reduced_formula"] for row in table if row["split"] == "val"]
    return val[:: len(val) // n][:n]


class Counted:
    """Counts what the network reads while the block lasts."""

    def __enter__(self) -> Self:
        self.steps = self.tokens = self.rows = 0
        self._runs_of = ragged.plan_runs

        def counting(tokens: Sequence[Sequence[int]], cache: Any, **how: Any) -> ragged.Runs:
            self.steps += 1
            self.rows += len(tokens)
            self.tokens += sum(map(len, tokens))
            return self._runs_of(tokens, cache, **how)

        ragged.plan_runs = counting
        return self

    def __exit__(self, *_: object) -> None:
        ragged.plan_runs = self._runs_of


def ours(
    model: Model, asked: list[str], n: int, batch: int, constraints: Any, **settings: Any
) -> dict[str, float]:
    """Write n crystals for each formula and say how fast.

    Returns:
        `crystals` written; `seconds` on the wall and `cpu` seconds of this process for them; their `tokens`
        behind the prompts;
        tokens `read` by the network; `rows` read in all its `passes`; peak `memory` of this process, GiB.
    """
    options = SamplingOptions(batch_size=batch, constraints=constraints, **settings)
    generator = Generator(model, [Request(formula=formula, n=n) for formula in asked], options)
    with Counted() as counted:
        start, cpu = time.perf_counter(), time.process_time()
        crystals = [crystal for found in generator.generate(range(len(asked))) for crystal in found]
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    return {
        "crystals": len(crystals),
        "seconds": seconds,
        "cpu": cpu,
        "tokens": sum(len(crystal.ids) - crystal.n_prompt for crystal in crystals),
        "read": counted.tokens,
        "rows": counted.rows,
        "passes": counted.steps,
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }


def told(found: dict[str, float]) -> str:
    """What `ours` gave, in one line."""
    crystals, tokens, cpu, passes = (found[name] for name in ("crystals", "tokens", "cpu", "passes"))
    return (
        f"{crystals / cpu:7.2f} crystals/s of CPU  {tokens / cpu:8.0f} tokens/s  "
        f"n = {crystals}, {tokens / crystals:.0f} tokens each, "
        f"{found['read'] / tokens:.2f} read a token kept, {found['rows'] / passes:.1f} rows and "
        f"{found['read'] / passes:.1f} tokens a pass, {found['memory']:.1f} GiB"
    )


def to_transformers(network: GPT) -> Any:
    """The same network as a GPT2LMHeadModel, whose linear weights are transposed and have biases."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = network.config
    theirs: Any = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=config.vocab_size,
            n_positions=config.context,
            n_embd=config.n_embd,
            n_layer=config.n_layer,
            n_head=config.n_head,
            activation_function="gelu_new",
            bos_token_id=None,
            eos_token_id=None,
            pad_token_id=0,
        )
    )
    known = network.state_dict()
    state = {}
    for name, tensor in theirs.state_dict().items():
        if name not in known:
            state[name] = torch.zeros_like(tensor)
        elif "c_" in name and name.endswith("weight"):
            state[name] = known[name].T.contiguous()
        else:
            state[name] = known[name]
    theirs.load_state_dict(state)
    return theirs.eval().to(network.lm_head.weight)


def theirs(model: Model, n_tokens: int, batch: int, *, cached: bool = False) -> dict[str, float]:
    """A batch of crystals of `transformers`, so many tokens each; see `ours` for what is returned."""
    network = to_transformers(model.network)
    device = model.network.transformer.wte.weight.device
    prompt = torch.tensor([PROMPT] * batch, device=device)
    if device.type == "cpu":
        ids = torch.randint(0, model.config.vocab_size, (2, 64))
        with torch.inference_mode():
            difference = (model.network(ids) - network(ids).logits).abs().max().item()
        if difference > 1e-4:
            raise SystemExit(f"the two networks are not the same: their logits differ by {difference}")
    start, cpu = time.perf_counter(), time.process_time()
    network.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        use_cache=cached,
        do_sample=True,
        top_k=10,
        min_new_tokens=n_tokens,
        max_new_tokens=n_tokens,
    )[0, 0].item()  # which waits for a GPU
    return {
        "crystals": batch,
        "seconds": time.perf_counter() - start,
        "cpu": time.process_time() - cpu,
        "tokens": batch * n_tokens,
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }


def main() -> None:
    """Run what was asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("language", choices=["cif", "orbits"])
    parser.add_argument("--parquet", required=True, help="the corpus")
    parser.add_argument("--formulas", type=int, default=64)
    parser.add_argument("-n", type=int, default=1, help="crystals for each formula")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8, 32, 128])
    parser.add_argument("--constraints", nargs="+", default=["full", "none"])
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--theirs", action="store_true", help="transformers alone")
    parser.add_argument("--tokens", type=int, default=400, help="tokens a crystal of theirs")
    args = parser.parse_args()
    torch.set_num_threads(1)
    model = random_model() if args.language == "cif" else load_model("default", device="cpu")
    if args.theirs:
        for batch in args.batch:
            runs = [theirs(model, args.tokens, batch) for _ in range(args.repeats)]
            found = [run["crystals"] / run["cpu"] for run in runs]
            spread = f"{min(found):.4f} to {max(found):.4f}, n = {len(found)}"
            print(
                f"theirs, batch {batch:3d}: {statistics.median(found):.4f} crystals/s of CPU ({spread})",
                flush=True,
            )
        return
    model.network.to(getattr(torch, args.dtype))
    asked = formulas(args.parquet, args.formulas)
    ours(model, asked[:4], 1, 4, "full")
    for batch in args.batch:
        for constraints in args.constraints:
            for _ in range(args.repeats):
                line = told(ours(model, asked, args.n, batch, constraints))
                print(f"{args.language} {args.dtype} batch {batch:3d} {constraints:4} {line}", flush=True)


if __name__ == "__main__":
    main()
