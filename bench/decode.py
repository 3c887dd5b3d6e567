"""Cached decoding here against `transformers` without a cache: the same weights, alternating in one run.

    python bench/decode.py --batch 1 32 --repeats 3

The network has the size of the small published one and random weights; both sides write the same number of
tokens, drawn with top-k 10 in float32. Prints tokens a second of each repetition, and the ratio with its
spread. The uncached side is slow at batch 32 (minutes a repetition): `--repeats-large` says how many to take.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import torch

from crystallm.decode import Stop, sample
from crystallm.model import GPT, ModelConfig

PROMPT = [20, 89, 97, 120]


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
    ours = network.state_dict()
    state = {}
    for name, tensor in theirs.state_dict().items():
        if name not in ours:
            state[name] = torch.zeros_like(tensor)
        elif "c_" in name and name.endswith("weight"):
            state[name] = ours[name].T.contiguous()
        else:
            state[name] = ours[name]
    theirs.load_state_dict(state)
    return theirs.eval()


def run_ours(network: GPT, batch: int, n_tokens: int) -> float:
    """Tokens a second of this package."""
    start = time.perf_counter()
    # An end that is never written: the token would have to follow itself 400 times.
    samples = sample(
        network, [PROMPT] * batch, stop=Stop((0,) * 400), batch_size=batch, max_new_tokens=n_tokens
    )
    written = sum(len(s.generated) for s in samples)
    return written / (time.perf_counter() - start)


def run_theirs(network: Any, batch: int, n_tokens: int) -> float:
    """Tokens a second of `generate(use_cache=False)`."""
    prompt = torch.tensor([PROMPT] * batch)
    start = time.perf_counter()
    out = network.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        use_cache=False,
        do_sample=True,
        top_k=10,
        min_new_tokens=n_tokens,
        max_new_tokens=n_tokens,
    )
    seconds = time.perf_counter() - start
    return float((out.shape[1] - len(PROMPT)) * batch / seconds)


def main() -> None:
    """Read the arguments, check that both sides agree on the logits, time them in turn."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 32], help="batch sizes")
    parser.add_argument("--tokens", type=int, default=300, help="tokens each text gets")
    parser.add_argument("--repeats", type=int, default=3, help="repetitions at batch sizes below 8")
    parser.add_argument("--repeats-large", type=int, default=1, help="repetitions at batch sizes from 8 on")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads of torch")
    parser.add_argument("--skip-theirs", action="store_true", help="time this package alone")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    network = GPT(
        ModelConfig(language="cif", vocab_size=371, context=1024, n_layer=8, n_head=8, n_embd=512)
    ).eval()
    theirs = None if arguments.skip_theirs else to_transformers(network)
    print(
        f"{network.num_parameters() / 1e6:.1f} M parameters, float32, {arguments.tokens} tokens a text, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}"
    )
    if theirs is not None:
        ids = torch.randint(0, 371, (2, 64))
        with torch.inference_mode():
            difference = (network(ids) - theirs(ids).logits).abs().max().item()
        print(f"largest difference of logits: {difference:.1e}")
        if difference > 1e-4:
            raise SystemExit("the two networks are not the same")
        run_theirs(theirs, 1, 8)
    network.pack()  # as loaded weights are; the other side keeps its own copy
    run_ours(network, 1, 8)
    for batch in arguments.batch:
        ratios = []
        for repeat in range(arguments.repeats if batch < 8 else arguments.repeats_large):
            ours_rate = run_ours(network, batch, arguments.tokens)
            line = f"batch {batch:3d}  run {repeat}  cached {ours_rate:8.1f} tok/s"
            if theirs is not None:
                theirs_rate = run_theirs(theirs, batch, arguments.tokens)
                ratios.append(ours_rate / theirs_rate)
                line += f"  transformers, uncached {theirs_rate:7.2f} tok/s  ratio {ratios[-1]:.1f}"
            print(line, flush=True)
        if ratios:
            print(
                f"batch {batch:3d}  ratio {statistics.median(ratios):.1f} "
                f"({min(ratios):.1f} to {max(ratios):.1f}, n = {len(ratios)})"
            )


if __name__ == "__main__":
    main()
