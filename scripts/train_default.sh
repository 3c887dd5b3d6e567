#!/usr/bin/env bash
# From the collections to the bundled model. BENCHMARKS holds perov_5/ and carbon_24/ with their official training
# splits, mp_20/ and mpts_52/ with their test splits; CORPUS is a Parquet file with the columns id, cif and split.
# Weights, recipe, metrics and card end in src/crystallm/models/weights/default. `crystallm train default` is one
# run of that kind, without the break.
set -euo pipefail
cd "$(dirname "$0")/.."

: "${CORPUS:?the corpus, a Parquet file}"
: "${BENCHMARKS:?folder with perov_5/, carbon_24/, mp_20/ and mpts_52/}" "${OUT:=runs/default}"
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

# Second and third part: the canonical descriptions alone.
crystallm train "$MODEL/recipe-2.json" --init-from "$OUT/run-1/last" --dataset "$OUT/data" --out "$OUT/run-2"
crystallm train "$MODEL/recipe-3.json" --init-from "$OUT/run-2/model" --dataset "$OUT/data" --out "$OUT/run-3"

# Fourth part: half of the crystals are hypothetical, of formulas that no collection has.
crystallm references hypothetical "$OUT/data" -n 240000 --out "$OUT/hypothetical" \
    --exclude "$BENCHMARKS/mp_20/test.csv.gz" --exclude "$BENCHMARKS/mpts_52/test.csv.gz"
crystallm train "$MODEL/recipe.json" --init-from "$OUT/run-3/model" --dataset "$OUT/data" \
    --replay-dataset "$OUT/hypothetical" --out "$OUT/run"
python scripts/bundle_model.py "$OUT/run" default --card "$MODEL/card.json"
