"""Put the weights of a training run into the package: bfloat16 shards, recipe, metrics and card.

    python scripts/bundle_model.py RUN NAME --card card.json [--into models] [--last]

The weights are those of the lowest validation loss, or the last ones. The card is a JSON object; its
`summary` is the line that `crystallm models` prints.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import torch

from crystallm.models import folder as models_folder
from crystallm.models import load
from crystallm.training import metrics, state

WEIGHTS = Path(__file__).parent.parent / "src/crystallm/models/weights"


def main() -> None:
    """Copy and convert."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("name")
    parser.add_argument("--card", type=Path, required=True)
    parser.add_argument("--into", type=Path, default=WEIGHTS, help="folder of models (the package's)")
    parser.add_argument("--last", action="store_true", help="the last weights, not the best ones")
    args = parser.parse_args()
    network = load.load(args.run / (state.LAST if args.last else state.MODEL), device="cpu")
    folder = args.into / args.name
    models_folder.save(network, folder, dtype=torch.bfloat16, card=json.loads(args.card.read_text()))
    for name in (state.RECIPE, metrics.METRICS):
        shutil.copy(args.run / name, folder / name)


if __name__ == "__main__":
    main()
