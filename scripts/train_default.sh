#!/usr/bin/env bash
# From the collections to the bundled model. BENCHMARKS holds perov_5/ and carbon_24/ with their official training
# splits; CORPUS is a Parquet file with the columns id, cif and split. Weights, recipe, metrics and card end in
# src/crystallm/weights/default.
set -euo pipefail
cd "$(dirname "$0")/.."
: "${CORPUS:?the corpus, a Parquet file}" "${BENCHMARKS:?folder with perov_5/ and carbon_24/}" "${OUT:=runs/default}"
crystallm prepare "$CORPUS" "$BENCHMARKS/perov_5/train.csv.gz=train" "$BENCHMARKS/carbon_24/train.csv.gz=train" \
    --out "$OUT/data"
export OMP_NUM_THREADS=1
crystallm train default --dataset "$OUT/data" --out "$OUT/run"
python scripts/bundle_model.py "$OUT/run" default --card src/crystallm/weights/default/card.json
