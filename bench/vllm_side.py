"""vLLM's side of the comparison, run by the python of an environment that has it: see `bench/speed.py`.

    PYTHON bench/vllm_side.py FOLDER '{"batch": 128, "tokens": 400, "threads": 2, "repeats": 2}'

FOLDER holds a GPT-2 of `transformers`. Every text begins with the same prompt, has so many tokens, and its
end is ignored: vLLM gets no rules. Prints one JSON line for each run. Imports nothing of this project.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from typing import Any

PROMPT = [20, 89, 97, 120]


def _cpu() -> float:
    """Seconds of CPU of this process and of those it waited for."""
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def main(folder: str, options: dict[str, Any]) -> None:
    """Load, warm up, run."""
    # In this process, so that its CPU time and memory are seen.
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")
    os.environ["VLLM_CPU_OMP_THREADS_BIND"] = f"0-{options['threads'] - 1}"
    os.environ["VLLM_LOGGING_LEVEL"] = "WARNING"
    from vllm import LLM, SamplingParams

    network = LLM(
        folder,
        skip_tokenizer_init=True,
        dtype="bfloat16",
        max_model_len=1024,
        max_num_seqs=options["batch"],
        enforce_eager=bool(options.get("eager")),
        enable_prefix_caching=False,
        seed=0,
    )
    prompts: Any = [{"prompt_token_ids": PROMPT}] * options["batch"]

    def write(n_tokens: int) -> dict[str, float]:
        how = SamplingParams(
            temperature=1.0,
            top_k=10,
            max_tokens=n_tokens,
            min_tokens=n_tokens,
            ignore_eos=True,
            detokenize=False,
        )
        start, cpu = time.perf_counter(), _cpu()
        found = network.generate(prompts, how, use_tqdm=False)
        return {
            "crystals": len(found),
            "seconds": time.perf_counter() - start,
            "cpu": _cpu() - cpu,
            "tokens": sum(len(each.outputs[0].token_ids) for each in found),
            "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        }

    write(8)
    for _ in range(options["repeats"]):
        print("JSON " + json.dumps(write(options["tokens"])), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
