"""`crystallm convert`: models between forms, texts between languages."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from crystallm.cli.option_groups import ConfigFile, Quiet, merged, tolerance
from crystallm.errors import InputError

if TYPE_CHECKING:
    from crystallm.language import Language


MODELS = ("hf", "safetensors")

TEXTS = ("orbits", "cif")

DTYPES = ("float32", "bfloat16", "float16")


def convert(
    source: Annotated[
        str | None,
        Parameter(
            help="A model (name, folder, ckpt.pt, archive, hf:org/name), or a file of a text or a crystal."
        ),
    ] = None,
    *,
    to: Annotated[
        Literal["hf", "safetensors", "orbits", "cif"] | None,
        Parameter(
            help="hf (a model for transformers, vLLM, PEFT), safetensors (ours); orbits, cif (a text)."
        ),
    ] = None,
    out: Annotated[
        Path | None, Parameter(help="Folder of the model (named after it), or file of the text (printed).")
    ] = None,
    dtype: Annotated[
        Literal["float32", "bfloat16", "float16"] | None, Parameter(help="Of stored weights (float32).")
    ] = None,
    push: Annotated[
        str | None, Parameter(help="With --to hf: put it on the Hugging Face Hub as org/name, with its card.")
    ] = None,
    private: Annotated[
        bool | None, Parameter(negative=(), help="With --push: seen by nobody else, if it is new there.")
    ] = None,
    symprec: Annotated[float | None, Parameter(help="Tolerance of the symmetry search, Å (0.1).")] = None,
    config: ConfigFile = None,
    quiet: Quiet = False,
) -> None:
    """Turn a model into another form, or a crystal's text into another language.

    crystallm convert default --to hf --out default-hf

    crystallm convert rutile.cif --to orbits

    A model that others have tuned comes back by --to safetensors. Texts are read from .txt in either
    language, or from any file of one crystal, and printed.
    """
    flags = {
        "source": source, "to": to, "out": out, "dtype": dtype, "push": push, "private": private,
        "symprec": symprec,
    }  # fmt: skip
    options = merged(config, flags)
    if options.get("source") is None:
        raise InputError("nothing to convert: name a model, or a file with a crystal")
    what = options.get("to")
    if what in MODELS:
        said = _model(str(options["source"]), str(what), options)
    elif what in TEXTS:
        said = _text(str(options["source"]), str(what), options)
    else:
        raise InputError(
            f"to = {what!r}: write {', '.join(MODELS)} for a model, {', '.join(TEXTS)} for a text"
        )
    if said and not quiet:
        sys.stdout.write(said)


def _model(source: str, to: str, options: dict[str, Any]) -> str:
    """Convert a model; what there is to say."""
    import torch

    from crystallm.models import folder as models_folder
    from crystallm.models import hub, huggingface, load

    push, place = options.get("push"), options.get("out")
    if push is not None and to != "hf":
        raise InputError("--push takes --to hf: that is the form in which the Hub has models")
    kind = options.get("dtype", "float32")
    if kind not in DTYPES:
        raise InputError(f"dtype = {kind!r}: write {', '.join(DTYPES)}")
    dtype: torch.dtype = getattr(torch, kind)
    model = load.load_model(source, device="cpu")
    said = ""
    if place is not None or push is None:
        name = model.name.split(".", maxsplit=1)[0]
        folder = Path(str(place)) if place is not None else Path(f"{name}-{to}")
        if to == "hf":
            huggingface.write(model, folder, dtype=dtype)
        else:
            if folder.exists():
                raise InputError(f"{str(folder)!r} is there already: name another place with --out")
            models_folder.save(model.network, folder, dtype=dtype, card=model.card or None)
        said = (
            f"{model.name}: {model.language.name}, {model.network.num_parameters() / 1e6:.1f} M; {folder}\n"
        )
    if push is not None:
        said += hub.push(model, str(push), private=bool(options.get("private")), dtype=dtype) + "\n"
    return said


def _text(source: str, to: str, options: dict[str, Any]) -> str:
    """Convert a text or a crystal; it, or "" where it was written to a file."""
    from crystallm.language import get_language
    from crystallm.storage import files

    language = get_language(to)
    path = Path(source)
    symprec = tolerance(options.get("symprec"))
    if path.suffix.lower() == ".txt":
        read = _language_of(path)
        ids = read.ids(path.read_text(encoding="utf-8"))
        if language.writes_cif and not read.writes_cif:
            written = read.standard_text(ids)  # its space group stays as it was written
        else:
            written = language.text(language.encode(read.decode(ids), symprec))
    else:
        from crystallm.generation import template

        written = language.text(language.encode(template.read(path), symprec))
    written = written if written.endswith("\n") else f"{written}\n"
    if options.get("out") is None:
        return written
    files.write_atomically(Path(str(options["out"])), written.encode())
    return ""


def _language_of(path: Path) -> Language:
    """The language of a text, by its beginning."""
    from crystallm.language import get_language

    try:
        begins = path.read_text(encoding="utf-8").lstrip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{str(path)!r} cannot be read: {error}") from None
    if begins.startswith("data_"):
        return get_language("cif")
    if begins.startswith("<crystal>"):
        return get_language("orbits")
    raise InputError(f"{str(path)!r} begins with {begins[:20]!r}: a text begins with data_ or <crystal>")
