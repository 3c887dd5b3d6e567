"""Model card (README.md) of a model on the Hub, from its card.json; missing sections are marked as such."""

from __future__ import annotations

import json
from typing import Any

from crystallm.models.model import Model

_USE = """
## How to use

```python
import crystallm

model = crystallm.load_model("hf:{name}")  # or the path of this folder
for crystal in crystallm.generate("TiO2", z=2, n=5, model=model):
    print(crystal.space_group, crystal.validity.plausible)
```

The network alone, without the grammar (some of the generated texts are then not crystals):

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

network = AutoModelForCausalLM.from_pretrained("{name}")
tokenizer = AutoTokenizer.from_pretrained("{name}")
ids = tokenizer({prompt!r}, return_tensors="pt", add_special_tokens=False).input_ids
print(tokenizer.decode(network.generate(ids, max_new_tokens={new})[0]))
```
"""


def markdown(model: Model, name: str = "ORG/NAME") -> str:
    """Return the README of a model."""
    from huggingface_hub import ModelCardData

    card = model.card
    data = ModelCardData(
        library_name="crystallm",
        pipeline_tag="text-generation",
        license=str(card.get("licence") or card.get("license") or "other").lower(),
        tags=["materials-science", "chemistry", "crystal-structure-prediction", "crystallography"],
    )
    head = [
        "---",
        data.to_yaml(),
        "---",
        "",
        f"# {name.rsplit('/', maxsplit=1)[-1] if name != 'ORG/NAME' else model.name}",
        "",
        str(card.get("summary") or "A language model of crystals, without a card of its own."),
        "",
        "## What it is",
        "",
        "| | |",
        "|---|---|",
        *(f"| {key} | {value} |" for key, value in _facts(model).items()),
    ]
    parts = [
        "\n".join(head),
        _section("Intended use", card.get("intended_use")),
        _USE.format(name=name, prompt=model.language.text(model.language.prompt([("Ti", 2), ("O", 4)])),
                    new=model.language.typical_length),
        _section("Training data", _data(card.get("data"))),
        _section("Left out of the training data", card.get("excluded")),
        _section("Training", card.get("training")),
        _section("Figures", _figures(card.get("figures"))),
        _section("Limits", card.get("limits")),
    ]  # fmt: skip
    return "\n".join(part for part in parts if part).rstrip() + "\n"


def _facts(model: Model) -> dict[str, Any]:
    config = model.config
    conditions = {
        f"condition `{scale.name}`": f"{scale.lowest:.4g} to {scale.highest:.4g} {scale.unit}".rstrip()
        for scale in config.condition_scales
    }
    reads = {"reads": f"at most {config.n_relatives} known relatives"} if config.n_relatives else {}
    return (
        conditions
        | reads
        | {
            "language": f"`{config.language}` ({config.vocab_size} tokens)",
            "form": {"gpt2": "GPT-2", "llama": "Llama"}[config.form],
            "parameters": f"{model.network.num_parameters() / 1e6:.1f} M",
            "context": f"{config.context} tokens",
            "layers, heads, width": f"{config.n_layer}, {config.n_head}, {config.n_embd}",
        }
    )


def _section(title: str, text: Any) -> str:
    return f"\n## {title}\n\n{text}\n" if text else f"\n## {title}\n\nNot given.\n"


def _data(data: Any) -> str:
    if not isinstance(data, list):
        return str(data or "")
    lines = ["| source | crystals | licence |", "|---|---|---|"]
    rows = (row for row in data if isinstance(row, dict))
    cells = ([str(row.get(key, "")) for key in ("name", "crystals", "licence")] for row in rows)
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in cells)])


def _figures(figures: Any) -> str:
    if not figures:
        return ""
    return f"```json\n{json.dumps(figures, indent=1, ensure_ascii=False)}\n```"
