#!/usr/bin/env bash
# From the packages to the encoder in runs/tiny-zh; what is done already is not done again.
#   recipes/wenmai-tiny-zh/build.sh [FILE OR FOLDER OF TEST DATA THAT THE TEXT MUST NOT HOLD ...]
set -euo pipefail
cd "$(dirname "$0")/../.."
recipe=recipes/wenmai-tiny-zh
work=runs/tiny-zh
PATH="$PWD/.venv/bin:$PATH"

test_sets=()
for path in "$work/test-sets" "$@"; do test_sets+=(--test-set "$path"); done

if [ ! -d "$work/raw" ]; then
  python "$recipe/sources.py" "$work/raw.part"
  mv "$work/raw.part" "$work/raw"
fi
mkdir -p "$work/test-sets" "$work/clean"
for sample in peoples_daily reviews; do
  [ -f "$work/test-sets/$sample.jsonl" ] || wenmai samples "$sample/test" > "$work/test-sets/$sample.jsonl"
done
for raw in "$work"/raw/*.jsonl; do
  name=$(basename "$raw")
  [ -f "$work/clean/$name" ] && continue
  wenmai corpus clean "$raw" --output "$work/cleaned-$name" --config "$recipe/corpus.yaml" --overwrite
  wenmai corpus dedup "$work/cleaned-$name" --output "$work/clean/$name" --config "$recipe/corpus.yaml" --overwrite
done
[ -f "$work/mixture.jsonl" ] || wenmai corpus mix --config "$recipe/corpus.yaml" --output "$work/mixture.jsonl" --overwrite
[ -f "$work/corpus.jsonl" ] || wenmai corpus decontaminate "$work/mixture.jsonl" --output "$work/corpus.jsonl" \
  --config "$recipe/corpus.yaml" "${test_sets[@]}" --overwrite
[ -d "$work/tokenizer" ] || wenmai tokenizer train "$work/corpus.jsonl" "$recipe/characters.txt" \
  --output "$work/tokenizer" --kind wordpiece --size 10000 --lowercase --coverage 1 --hold-out 0
wenmai train "$recipe/pretrain.yaml" --resume
wenmai train "$recipe/pretrain-characters.yaml" --resume
python "$recipe/ship.py" "$work/pretrain-characters" src/wenmai/models/wenmai-tiny-zh
