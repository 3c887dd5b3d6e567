#!/usr/bin/env bash
# From the collections to the bundled model. BENCHMARKS holds perov_5/ and carbon_24/ with their official training
# splits; CORPUS is a Parquet file with the columns id, cif and split. Weights, recipe, metrics and card end in
# src/crystallm/models/weights/default. `crystallm train default` is one run of that kind, without the break.
set -euo pipefail
cd "$(dirname "$0")/.."
: "${CORPUS:?the corpus, a Parquet file}" "${BENCHMARKS:?folder with perov_5/ and carbon_24/}" "${OUT:=runs/default}"
MODEL=src/crystallm/models/weights/default
export OMP_NUM_THREADS=1
crystallm prepare "$CORPUS" "$BENCHMARKS/perov_5/train.csv.gz=train" "$BENCHMARKS/carbon_24/train.csv.gz=train" \
    --augmentations 6 --out "$OUT/data"

# First part, better on a GPU: crystals told in equivalent ways. Its schedule of 80 million tokens is left at 70 %.
crystallm train "$MODEL/recipe-1.json" --dataset "$OUT/data" --out "$OUT/run-1" &
until [ -f "$OUT/run-1/metrics.jsonl" ] && tail -n 1 "$OUT/run-1/metrics.jsonl" | grep -Eq '"share": (0\.[789]|1)'; do
    kill -0 $! && sleep 5
done
kill $!

# Second part: the canonical descriptions alone.
crystallm train "$MODEL/recipe.json" --init-from "$OUT/run-1/last" --dataset "$OUT/data" --out "$OUT/run"
python scripts/bundle_model.py "$OUT/run" default --card "$MODEL/card.json"
