"""Search against plain sampling at equal energy calls, both under the rules.

    python bench/search.py corpus.parquet --out study                 (20 test compositions, 2 seeds)
    python bench/search.py corpus.parquet --out val --split val --compositions 6 --set explore_share=0.2
    python bench/search.py corpus.parquet --out paper --preset paper --sampling study/sampling
    python bench/search.py corpus.parquet --timing                    (200 simulations of one composition)

Compositions are those of the split's conventional cells with at most 20 atoms, evenly spread. Each arm may
ask for the energies of so many crystals (`--calls`), equal ones once; where there are not so many, it ends
after `--simulations`. One file a unit (arm, composition, seed) in --out, so a killed study goes on.

For each composition and seed the search wins (1), ties (1/2) or loses (0): valid share, of all texts written;
lowest and mean energy of its distinct valid crystals, ties within 1 meV/atom; the same of the lowest distinct
structures (`--relax`), relaxed with their symmetry kept. An arm without a valid crystal loses; neither, a
tie. Printed: the share of compositions, mean over seeds, with a 95 % bootstrap interval over compositions,
and the mean difference in eV/atom.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from crystallm.benchmarks.reference_sets import read_references, requests_for, spread
from crystallm.energy import calculations, relaxation
from crystallm.execution import tasks
from crystallm.generation.interpretation import interpret
from crystallm.generation.request import Request, SamplingOptions
from crystallm.models.load import load_model
from crystallm.storage import files, run_folder
from crystallm.structure_search.api import best_first
from crystallm.structure_search.options import EliteOptions, SearchOptions, TreeOptions, sampling_of
from crystallm.structure_search.search import Search

TIE = 1e-3
MEASURES = {
    "valid share": ("valid_share", 0.0, 1),
    "lowest energy": ("lowest", TIE, -1),
    "mean energy": ("mean", TIE, -1),
    "lowest energy, relaxed": ("relaxed_lowest", TIE, -1),
    "mean energy, relaxed": ("relaxed_mean", TIE, -1),
}


def compositions(path: str, which: str, n: int, atoms: int) -> list[str]:
    """Cell compositions of a split, evenly spread."""
    truths = [
        t
        for t in [entry.structure for entry in read_references(path, split=which, entries=40 * n)]
        if len(t) <= atoms
    ]
    asked = [r for r in requests_for(truths, 1) if r is not None and r.formula]
    sizes = {r.formula: interpret(r).cell for r in asked}
    small = [f for f, cell in sizes.items() if cell and sum(k for _, k in cell.composition) <= atoms]
    return spread([f for f in small if f], n)


def options_of(preset: str, given: dict[str, Any]) -> tuple[SearchOptions, SamplingOptions]:
    """Options of the search and of its samples, from values by name."""
    groups: dict[str, Any] = {"tree": TreeOptions, "elites": EliteOptions, "sampling": SamplingOptions}
    values: dict[str, Any] = {"preset": preset}
    for name, value in given.items():
        group = next((key for key, options in groups.items() if name in options.model_fields), None)
        (values if group is None else values.setdefault(group, {}))[name] = value
    sampling = SamplingOptions.build(values.pop("sampling", {}))
    options = SearchOptions.build(values)
    return options, sampling_of(options, sampling)


def unit(args: argparse.Namespace, model: Any, formula: str, seed: int, *, given: Any, log: Path) -> Any:
    """One arm on one composition."""
    options, sampling = options_of(
        args.preset if given.get("method") != "sampling" else "default",
        {
            "energy": args.energy, "energy_calls": args.calls, "simulations": args.simulations, "seed": seed,
            "device": "cpu", **given,
        },
    )  # fmt: skip
    started, cpu = time.monotonic(), time.process_time()
    search = Search(model, Request(formula=formula), options, sampling, log, workers=args.workers)
    found = search.run()
    seconds, cpu = time.monotonic() - started, time.process_time() - cpu
    own = [one.crystal.energy for one in found if one.equals is None and one.crystal.energy is not None]
    best = best_first(found)[: args.relax]
    relaxed = calculations.relax_all(
        [crystal.structure for crystal in best],
        args.energy,
        relaxation.RelaxOptions(keep_symmetry=True),
        n_workers=args.workers,
    )
    energies = [one.energy for one in relaxed if not isinstance(one, tasks.Failure)]
    return {
        "formula": formula, "seed": seed, "simulations": search.state.simulations,
        "calls": search.state.calls,
        "valid_share": search.state.plausible / max(1, search.state.texts), "distinct": len(own),
        "lowest": min(own, default=None), "mean": float(np.mean(own)) if own else None,
        "relaxed_lowest": min(energies, default=None),
        "relaxed_mean": float(np.mean(energies)) if energies else None,
        "relaxed": energies, "groups": [crystal.space_group for crystal in best], "stopped": search.stopped,
        "energies": own, "moves": [one.move for one in found if one.call is not None],
        "seconds": seconds, "cpu_seconds": cpu,
    }  # fmt: skip


def arm(
    args: argparse.Namespace, model: Any, formulas: list[str], folder: Path, given: dict[str, Any]
) -> list[dict[str, Any]]:
    """All units of an arm; those that are there are not done again."""
    question = {
        "preset": "-" if given.get("method") == "sampling" else args.preset, "energy": args.energy,
        "calls": args.calls, "relax": args.relax, "model": args.model,
        "simulations": args.simulations, "given": given,
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / run_folder.CONFIG).exists():
        run_folder.check_config(folder / run_folder.CONFIG, question)
    files.write_json(folder / run_folder.CONFIG, question)
    found = []
    for formula in formulas:
        for seed in range(args.seeds):
            path = folder / f"{formula}-{seed}.json"
            if not path.exists():
                log = folder / f"{formula}-{seed}.jsonl"
                files.write_json(path, unit(args, model, formula, seed, given=given, log=log))
            one = json.loads(path.read_text())
            print(
                f"{folder.name:10s} {formula:16s} {seed} valid {one['valid_share']:.2f} lowest "
                f"{_told(one['lowest'])} mean {_told(one['mean'])} relaxed {_told(one['relaxed_lowest'])} "
                f"{' '.join(one['groups'])} {one['seconds']:.0f} s",
                flush=True,
            )
            found.append(one)
    return found


def _told(energy: float | None) -> str:
    return "      -" if energy is None else f"{energy:7.3f}"


def compare(ours: list[dict[str, Any]], theirs: list[dict[str, Any]], seeds: int) -> None:
    """Print who wins how often."""
    random = np.random.default_rng(0)
    n = len(ours) // seeds
    print(f"\n{n} compositions, {seeds} seeds; ties count half")
    for name, (key, tie, sign) in MEASURES.items():
        scores, gaps = [], []
        for a, b in zip(ours, theirs, strict=True):
            x, y = a[key], b[key]
            if x is None or y is None:
                scores.append(0.5 if x is y else float(y is None))
                continue
            gap = sign * (x - y)
            scores.append(0.5 if abs(gap) <= tie else float(gap > 0))
            gaps.append(x - y)
        by_composition = np.array(scores).reshape(n, seeds).mean(axis=1)
        draws = by_composition[random.integers(n, size=(10_000, n))].mean(axis=1)
        low, high = np.percentile(draws, [2.5, 97.5])
        wins, ties = sum(s == 1 for s in scores), sum(s == 0.5 for s in scores)
        mean_gap = f"{np.mean(gaps):+.4f}" if gaps else "-"
        print(
            f"{name:24s} {100 * by_composition.mean():5.1f} %  [{100 * low:.0f}, {100 * high:.0f}]  "
            f"{wins} won, {ties} tied, {len(scores) - wins - ties} lost; mean difference {mean_gap}"
        )


def timing(args: argparse.Namespace, model: Any) -> None:
    """Print the wall time of 200 simulations, and of as many tokens by one forward each without cache."""
    torch.set_num_threads(args.threads)
    options, sampling = options_of(
        args.preset,
        {
            "simulations": 200,
            "energy": args.energy,
            "device": "cpu",
            "seed": 0,
            **_settings(args.set),
        },
    )
    search = Search(model, Request(formula=args.formula), options, sampling, workers=args.workers)
    started, before = time.monotonic(), os.times()
    search.run()
    seconds = time.monotonic() - started
    after = os.times()
    own, theirs = after.user + after.system, after.children_user + after.children_system
    own, theirs = own - before.user - before.system, theirs - before.children_user - before.children_system
    written = [len(one.crystal.ids) - one.crystal.n_prompt for one in search.samples]
    length = round(np.mean([len(one.crystal.ids) for one in search.samples]))
    ids = torch.randint(0, model.config.vocab_size, (1, length))
    with torch.inference_mode():
        for _ in range(5):
            model.network(ids)
        start, n = time.process_time(), 50
        for _ in range(n):
            model.network(ids)
        forward = (time.process_time() - start) / n
    uncached = forward * sum(written)
    cpu = f"{own:.1f} s of CPU here and {theirs:.1f} s there"
    print(
        f"{args.formula}: 200 simulations in {seconds:.1f} s of wall time with {search.state.calls} energies "
        f"({args.energy}, {args.workers} processes, loading counted; {cpu}); {np.mean(written):.1f} tokens "
        f"each. A forward of {length} tokens without cache: {1000 * forward:.2f} ms of CPU; for each token "
        f"of these texts {uncached:.1f} s without energies: {uncached / seconds:.2f} times the wall time of "
        f"the search with them, {uncached / (own + theirs):.2f} times its CPU time"
    )


def _settings(pairs: list[str]) -> dict[str, Any]:
    """`name=value`, values as JSON where they are."""
    found: dict[str, Any] = {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found


def main() -> None:
    """Run what was asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("corpus")
    parser.add_argument("--out", type=Path, default=Path("study"))
    parser.add_argument("--sampling", type=Path, help="folder of sampled units (OUT/sampling)")
    parser.add_argument("--split", default="test")
    parser.add_argument("--compositions", type=int, default=20)
    parser.add_argument("--atoms", type=int, default=20)
    parser.add_argument("--calls", type=int, default=100)
    parser.add_argument("--simulations", type=int, default=400, help="of an arm, at most")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--relax", type=int, default=3, help="lowest distinct structures that are relaxed")
    parser.add_argument("--energy", default="chgnet")
    parser.add_argument("--model", default="default")
    parser.add_argument("--preset", default="default")
    parser.add_argument("--set", nargs="*", default=[], help="options of the search, name=value")
    parser.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 1)))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--timing", action="store_true")
    parser.add_argument("--formula", default="Ti4O8", help="for --timing")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model = load_model(args.model, device="cpu")
    if args.timing:
        timing(args, model)
        return
    formulas = compositions(args.corpus, args.split, args.compositions, args.atoms)
    sampled = args.sampling or args.out / "sampling"
    theirs = arm(args, model, formulas, sampled, {"method": "sampling"})
    ours = arm(args, model, formulas, args.out / "search", _settings(args.set))
    compare(ours, theirs, args.seeds)


if __name__ == "__main__":
    main()
