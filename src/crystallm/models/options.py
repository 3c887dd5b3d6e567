"""Options of commands on models. Imports pydantic only."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from crystallm.options import CommonOptions, Options, same


class ModelNameOptions(Options):
    """The trained model that a command loads."""

    model: str = "default"
    """Bundled or published name, folder, ckpt.pt or its archive, hf:org/name."""


class ModelsOptions(Options):
    """Which models to list or download."""

    fetch: str | None = None
    """Download a published model by its name, checked and resumed; then use --model NAME."""
    published: bool = False
    """List the published CrystaLLM models instead of the bundled ones."""


class ConvertOptions(Options):
    """What to convert, and to which form."""

    source: str | None = None
    """A model (name, folder, ckpt.pt, archive, hf:org/name), or a file of a text or a crystal."""
    to: Literal["hf", "safetensors", "orbits", "cif"] | None = None
    """A model: hf (for transformers, vLLM, PEFT) or safetensors (ours); a text: orbits or cif."""
    out: Path | None = same(
        CommonOptions,
        "out",
        description="Folder of the model (default: named after it), or file of the text (default: print it).",
    )
    weights_dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Precision of the stored weights."""
    push: str | None = None
    """With --to hf: upload to the Hugging Face Hub as org/name, with its card."""
    private: bool = False
    """With --push: create a private repository."""
    symprec: float = same(CommonOptions, "symprec")
