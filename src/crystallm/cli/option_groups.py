"""The commands, one file a kind, and what they share: options from a file, progress, JSON lines.

Nothing heavy is imported here: every command's help comes from these files.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from crystallm.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from concurrent.futures import Executor

    from crystallm.generation.request import SamplingOptions


ConfigFile = Annotated[
    Path | None,
    Parameter(
        name="--config", help="YAML file with options of this command; what stands on the command line wins."
    ),
]

ModelName = Annotated[
    str | None,
    Parameter(help="Bundled or published name, folder, ckpt.pt or its archive, hf:org/name (default)."),
]

Temperature = Annotated[
    float | None,
    Parameter(
        help="Below 1 the likely grows likelier, above 1 samples differ more; 0: likeliest only (1.0)."
    ),
]

TopK = Annotated[int | None, Parameter(help="Sample from the k likeliest tokens (10); 0 for all.")]

TopP = Annotated[
    float | None, Parameter(help="Sample from the likeliest tokens that together are as probable (1).")
]

Seed = Annotated[int | None, Parameter(help="The same seed gives the same crystals (0).")]

Constraints = Annotated[
    str | None, Parameter(help="full: crystallography and formula; syntax: the form alone; none (full).")
]

Device = Annotated[str | None, Parameter(help="auto, cpu, cuda, cuda:1, mps (auto).")]

Dtype = Annotated[
    str | None, Parameter(help="float32, or bfloat16: faster for large networks (auto: float32).")
]

BatchSize = Annotated[int | None, Parameter(help="Crystals written at a time (32).")]

Formation = Annotated[
    bool | None,
    Parameter(negative=(), help="Formation energies, eV/atom, from the elements by the same energy model."),
]

HullFile = Annotated[
    Path | None,
    Parameter(
        name="--hull",
        help="File of entries (CSV, JSONL, JSON: composition, energy_per_atom): how far above their hull.",
    ),
]

Cluster = Annotated[
    str | None,
    Parameter(
        name="--cluster",
        help="Work on a Dask cluster: its scheduler's address, or a YAML file; see crystallm cluster.",
    ),
]

Json = Annotated[bool, Parameter(negative=(), help="Print JSON, one object a line, in place of a table.")]

Quiet = Annotated[bool, Parameter(negative=(), help="Print nothing but errors.")]


def merged(config: Path | None, flags: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a YAML file and of the command line, those that are None left out.

    Args:
        config: the file, if there is one.
        flags: all options of the command, by name.

    Raises:
        InputError, CrystallmError: as `read_config`.
    """
    return read_config(config, flags) | {name: value for name, value in flags.items() if value is not None}


def read_config(path: Path | None, known: Iterable[str]) -> dict[str, Any]:
    """Options of a YAML file.

    Args:
        path: of the file; None for no options.
        known: the names that there are.

    Raises:
        InputError: no mapping, or an unknown name.
        CrystallmError: the file cannot be read.
    """
    if path is None:
        return {}
    from crystallm.options import hint, read_mapping

    content = read_mapping(path, "temperature: 0.8") or {}
    options = {name.replace("-", "_"): value for name, value in content.items()}
    names = sorted(known)
    for name in options:
        if name not in names:
            raise InputError(f"{path}: unknown option {name!r}: {hint(name, names)}")
    return options


@contextlib.contextmanager
def executor(options: Mapping[str, Any]) -> Iterator[Executor | None]:
    """Where the units of work run: on the cluster that the option names; None: on this machine.

    Raises:
        InputError, CrystallmError: as `cluster.connect`.
    """
    if options.get("cluster") is None:
        yield None
        return
    from crystallm.execution import cluster

    with cluster.connect(str(options["cluster"])) as connected:
        yield connected


def sampling(options: Mapping[str, Any]) -> SamplingOptions:
    """How to sample, of the options of a command; `top_k` 0 stands for all tokens.

    Raises:
        InputError: an option out of its range, or one that is none.
    """
    from crystallm.generation.request import SamplingOptions
    from crystallm.options import validated

    top_k = {"top_k": None} if options.get("top_k") == 0 else {}
    return validated(SamplingOptions, {**options, **top_k})


def whole(name: str, value: Any, default: int) -> int:
    """A whole number from 1.

    Raises:
        InputError: it is none.
    """
    number = default if value is None else value
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        raise InputError(f"{name} = {value!r}: write a whole number from 1")
    return number


def tolerance(value: Any) -> float:
    """The tolerance of a symmetry search, Å; 0.1 where none is given.

    Raises:
        InputError: no length, or one that no search takes.
    """
    found = 0.1 if value is None else value
    if isinstance(found, bool) or not isinstance(found, int | float) or not 0 < found < 10:
        raise InputError(f"symprec = {found!r}: write a length in Å between 0 and 10")
    return float(found)
