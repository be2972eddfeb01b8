#!/usr/bin/env bash
# Measures CUDA on one card beside llama.cpp, in one visit and with the same files: synthetic 8B models, prompts of 128 tokens by
# batch, and single prompts of 512 and 2,048. Needs nvcc, CMake and the source of llama.cpp (PyPI's llama-cpp-python has it in
# vendor/llama.cpp). Prints Markdown.
#
#   bench/cuda_llama_cpp.sh LLAMA_CPP_SOURCE ARCH     ARCH as CMake has it: 90-real for an H100 or H200
#
# RUSTORCH is the program (default target/release/rustorch), FORMATS the models' (default "q8_0 q4_k_m").
set -euo pipefail
source=${1:?usage: bench/cuda_llama_cpp.sh LLAMA_CPP_SOURCE ARCH}
arch=${2:?usage: bench/cuda_llama_cpp.sh LLAMA_CPP_SOURCE ARCH}
cd "$(dirname "$0")/.."
rustorch=${RUSTORCH:-target/release/rustorch}
batches=1,4,16,32,64,128,256

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
off=()
for part in CURL OPENSSL BUILD_TESTS BUILD_EXAMPLES BUILD_SERVER BUILD_APP; do off+=("-DLLAMA_$part=OFF"); done
cmake -B "$work/build" -S "$source" -DCMAKE_BUILD_TYPE=Release -DGGML_CUDA=ON -DCMAKE_CUDA_ARCHITECTURES="$arch" \
  "${off[@]}" -DGGML_CCACHE=OFF -DBUILD_SHARED_LIBS=OFF > "$work/log"
cmake --build "$work/build" -j "$(nproc)" --target llama-bench llama-batched-bench >> "$work/log"
peer=$work/build/bin

# Columns of `rustorch bench --csv`: the batch, tokens/s of prompts and of decoding.
ours() { "$rustorch" bench -m "$1" --device cuda --csv "${@:2}" | awk -F, 'NR > 1 { print $14, int($15), int($16) }'; }

nvidia-smi --query-gpu=name,driver_version --format=csv,noheader
"$rustorch" --version | head -n 2
for format in ${FORMATS:-q8_0 q4_k_m}; do
  model=$work/$format.gguf
  "$rustorch" bench --synthetic "llama-3.1-8b:$format" --save "$model" --device cuda -b 1 -l 8 -n 2 -r 1 > "$work/log"
  ours "$model" -b "$batches" -l 128 -n 32 -r 1 > "$work/ours"
  "$peer/llama-batched-bench" -m "$model" -ngl 99 -fa on -c 45056 -npp 128 -ntg 32 -npl "$batches" 2> "$work/log" \
    | awk -F'|' '$2 + 0 == 128 { print $4 + 0, int($7), int($9) }' > "$work/theirs"
  printf '\n%s, tokens/s\n\n| batch | prompts | llama.cpp | ratio | decode | llama.cpp | ratio |\n' "$format"
  printf '| --: | --: | --: | --: | --: | --: | --: |\n'
  paste -d ' ' "$work/ours" "$work/theirs" \
    | awk '{ printf "| %d | %d | %d | %.2f | %d | %d | %.2f |\n", $1, $2, $5, $2 / $5, $3, $6, $3 / $6 }'
  for length in 512 2048; do
    printf '\nA prompt of %d: %s; llama.cpp' "$length" "$(ours "$model" -b 1 -l "$length" -n 2 -r 3 | cut -d ' ' -f 2)"
    for micro_batch in 512 2048; do
      "$peer/llama-bench" -m "$model" -ngl 99 -fa 1 -p "$length" -n 0 -r 3 -ub "$micro_batch" 2> "$work/log" \
        | awk -F'|' -v test="pp$length" -v size="$micro_batch" '$0 ~ test { printf " %d (-ub %d)", $(NF - 1), size }'
    done
    echo
  done
  rm "$model"
done
