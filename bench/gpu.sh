#!/usr/bin/env bash
# Measures a GPU with synthetic models, so that nothing has to be fetched: the device and its limits, the checks of every
# kernel, speed by batch, and what each kernel takes. Writes NAME.md, and for each model NAME-MODEL.json, to bench/results.
#
#   bench/gpu.sh NAME [DEVICE] [MODEL ..]
#
# NAME names the results (such as nvidia-h200), DEVICE is as of --device (default gpu), models are SHAPE:FORMAT.
set -euo pipefail
cd "$(dirname "$0")/.."

name=${1:?usage: bench/gpu.sh NAME [DEVICE] [MODEL ..]}
device=${2:-gpu}
shift $(($# > 1 ? 2 : 1))
models=("$@")
if [ ${#models[@]} = 0 ]; then
  models=(llama-3.1-8b:q4_k_m llama-3.1-8b:q8_0 llama-3.1-8b:f16 tinyllama-1.1b:q8_0)
fi

cargo build --release --locked -p rustorch-cli
rustorch=target/release/rustorch
results=bench/results
out=$results/$name.md
mkdir -p "$results"
times=$(mktemp)
trap 'rm -f "$times"' EXIT

{
  printf '# %s\n\n%s, commit %s\n\n' "$name" "$(date -u +%F)" "$(git rev-parse --short HEAD)"
  printf '```\n'
  $rustorch devices
  printf '```\n\n'
} > "$out"

for model in "${models[@]}"; do
  echo "== $model" >&2
  file=$results/$name-${model/:/-}.json
  # The speed that users get, by batch after short prompts; then a long prompt.
  $rustorch bench --device "$device" --synthetic "$model" -l 128 -n 64 >> "$out"
  $rustorch bench --device "$device" --synthetic "$model" -b 1 -l 2048 -n 16 | tail -n 1 >> "$out"
  $rustorch bench --device "$device" --synthetic "$model" -l 128 -n 64 --json > "$file"
  # Then where the time goes, with timestamps around every kernel.
  $rustorch bench --device "$device" --synthetic "$model" -b 1,4,16 -l 128 -n 64 -r 1 --profile 2> "$times" > /dev/null
  { printf '\n```\n'; cat "$times"; printf '```\n\n'; } >> "$out"
done

$rustorch devices --check --device "$device" >> "$out"
echo "$out" >&2
