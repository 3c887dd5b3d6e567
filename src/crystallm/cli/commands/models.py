"""`crystallm models`, `convert` and `embeddings`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crystallm.analysis.options import EmbeddingsOptions
from crystallm.cli.console import new_table, page, plain, print_json, print_table, progress
from crystallm.cli.option_groups import Flat, JsonOptions, OutputOptions, Positional, with_argument
from crystallm.errors import InputError
from crystallm.models.options import ConvertOptions, ModelsOptions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch

    from crystallm.language import Language

MODEL_FORMS, TEXT_FORMS = ("hf", "safetensors"), ("orbits", "cif")
"""Values of `--to` for a model and for a text."""

N_NEAREST = 3
"""Number of nearest tokens in the printed table."""


# -- models --------------------------------------------------------------------------------------------------


def models(
    *,
    options: Flat[ModelsOptions] = ModelsOptions.defaults(),
    output: Flat[JsonOptions] = JsonOptions.defaults(),
) -> None:
    """List the bundled models, or download a published one."""
    from crystallm.models import download
    from crystallm.models.load import list_models

    if options.fetch is not None:
        with progress(f"downloading {options.fetch}", None, shown=not output.as_json) as advance:
            path = download.fetch(options.fetch, progress=lambda done, _: advance(done))
        if output.as_json:
            print_json([{"name": options.fetch, "path": str(path)}])
        else:
            sys.stdout.write(f"{path}\n")
    elif options.published:
        rows = [
            {"name": name, "what": what, "here": download.path(name).exists()}
            for name, what in download.listed()["models"].items()
        ]
        if output.as_json:
            print_json(rows)
        else:
            print_published(rows, str(download.listed()["source"]), str(download.listed()["licence"]))
    else:
        described = [_describe(name) for name in list_models()]
        print_json(described) if output.as_json else print_models(described)


def _describe(name: str) -> dict[str, Any]:
    """Return name, language, size and card of a bundled model."""
    from crystallm.models.load import load_model

    model = load_model(name, device="cpu")
    return {
        "name": name,
        "language": model.language.name,
        "parameters": model.network.num_parameters(),
        "context": model.config.context,
        "card": model.card,
    }


def print_models(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print the bundled models."""
    if not rows:
        page().print("no model is bundled: give --model a folder of weights or a ckpt.pt")
        return
    lines = [
        (
            row["name"],
            row["language"],
            f"{row['parameters'] / 1e6:.1f} M",
            str(row["context"]),
            str(row["card"].get("summary", "")),
        )
        for row in rows
    ]
    print_table(("name", "language", "parameters", "context", "what it is"), lines, left=(0, 1, 4))


def print_published(rows: Sequence[Mapping[str, Any]], source: str, licence: str) -> None:
    """Print the published models and their source."""
    table = new_table(f"{source} ({licence})")
    for name in ("name", "what it is", "here"):
        table.add_column(name, no_wrap=name == "name")
    for row in rows:
        table.add_row(row["name"], row["what"], "yes" if row["here"] else "-")
    page().print(table)


# -- convert -------------------------------------------------------------------------------------------------


def convert(
    source: Positional = None,
    /,
    *,
    options: Flat[ConvertOptions] = ConvertOptions.defaults(),
    output: Flat[OutputOptions] = OutputOptions.defaults(),
) -> None:
    """Convert a model to another form, or a crystal's text to another language.

    crystallm convert default --to hf --out default-hf

    crystallm convert rutile.cif --to orbits

    --to safetensors reads a model that was fine-tuned elsewhere. Texts are read from .txt in either language,
    or from any file of one crystal, and printed.
    """
    options = with_argument(options, "source", source)
    if options.source is None:
        raise InputError("nothing to convert: name a model, or a file with a crystal")
    if options.to in MODEL_FORMS:
        message = _convert_model(options.source, options)
    elif options.to in TEXT_FORMS:
        message = _convert_text(options.source, options)
    else:
        raise InputError(
            f"to = {options.to!r}: write {', '.join(MODEL_FORMS)} for a model, "
            f"{', '.join(TEXT_FORMS)} for a text"
        )
    if message and not output.quiet:
        sys.stdout.write(message)


def _convert_model(source: str, options: ConvertOptions) -> str:
    """Convert a model and return what to print."""
    import torch as torch_module

    from crystallm.models import hub, huggingface
    from crystallm.models.folder import save
    from crystallm.models.load import load_model

    if options.push is not None and options.to != "hf":
        raise InputError("--push takes --to hf: that is the form of models on the Hub")
    dtype: torch.dtype = getattr(torch_module, options.weights_dtype)
    model = load_model(source, device="cpu")
    message = ""
    if options.out is not None or options.push is None:
        name = model.name.split(".", maxsplit=1)[0]
        folder = options.out or Path(f"{name}-{options.to}")
        if options.to == "hf":
            huggingface.write(model, folder, dtype=dtype)
        else:
            if folder.exists():
                raise InputError(f"{str(folder)!r} is there already: name another folder with --out")
            save(model.network, folder, dtype=dtype, card=model.card or None)
        size = model.network.num_parameters() / 1e6
        message = f"{model.name}: {model.language.name}, {size:.1f} M; {folder}\n"
    if options.push is not None:
        message += hub.push(model, options.push, private=options.private, dtype=dtype) + "\n"
    return message


def _convert_text(source: str, options: ConvertOptions) -> str:
    """Convert a text or a crystal; return the text, or "" if it was written to a file."""
    from crystallm.generation import template
    from crystallm.language import get_language
    from crystallm.storage import files

    language = get_language(str(options.to))
    path = Path(source)
    if path.suffix.lower() == ".txt":
        original = _language_of(path)
        ids = original.ids(path.read_text(encoding="utf-8"))
        if language.writes_cif and not original.writes_cif:
            text = original.standard_text(ids)  # keeps the space group of the text
        else:
            text = language.text(language.encode(original.decode(ids), options.symprec))
    else:
        text = language.text(language.encode(template.read(path), options.symprec))
    text = text if text.endswith("\n") else f"{text}\n"
    if options.out is None:
        return text
    files.write_atomically(options.out, text.encode())
    return ""


def _language_of(path: Path) -> Language:
    """Return the language of a text, from its start."""
    from crystallm.language import get_language

    try:
        text = path.read_text(encoding="utf-8").lstrip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{str(path)!r} cannot be read: {error}") from None
    if text.startswith("data_"):
        return get_language("cif")
    if text.startswith("<crystal>"):
        return get_language("orbits")
    raise InputError(f"{str(path)!r} begins with {text[:20]!r}: a text begins with data_ or <crystal>")


# -- embeddings ----------------------------------------------------------------------------------------------


def embeddings(
    model: Positional = None,
    /,
    *,
    options: Flat[EmbeddingsOptions] = EmbeddingsOptions.defaults(),
    output: Flat[OutputOptions] = OutputOptions.defaults(),
) -> None:
    """Write the embeddings that a model has learned for elements, digits or space groups.

    crystallm embeddings default --of atoms --out atoms.csv --map atoms.png

    Prints the three nearest tokens of each, by the angle between their vectors.
    """
    from crystallm.analysis import embeddings as learned
    from crystallm.models.load import load_model
    from crystallm.storage import files, tables
    from crystallm.visualization import charts

    options = with_argument(options, "model", model)
    names, vectors = learned.vectors(load_model(options.model, device="cpu"), options.of)
    if options.out is not None:
        tables.write_table(options.out, *learned.rows(names, vectors))
    if options.picture is not None:
        labels = [name.removesuffix("_sg") for name in names]
        categories = learned.categories(names, options.of)
        files.write_atomically(
            options.picture, charts.named_points(labels, learned.project(vectors), categories)
        )
    nearest = learned.nearest(names, vectors, N_NEAREST)
    if output.as_json:
        print_json({"name": name, "nearest": near} for name, near in zip(names, nearest, strict=True))
    elif not output.quiet:
        console = page()
        for name, near in zip(names, nearest, strict=True):
            console.print(plain(f"{name:12}{'  '.join(near)}"), highlight=False)
        for path in (options.out, options.picture):
            if path is not None:
                console.print(plain(str(path)), highlight=False)
