#!/usr/bin/env bash
# A few steps of a small model under compute-sanitizer, on a machine with a GPU: memcheck and racecheck must find nothing.
#   sanitize.sh PROGRAMS CORPUS [BACKEND]
# PROGRAMS: folder of assay-trainer. CORPUS: token shards with a vocabulary of 512 (assay data prepare --vocab-size 512).
# BACKEND: cuda as without it; cpu tries the script itself without the sanitizer.
# cuDNN's attention kernels are left out: racecheck reports hazards inside them that are not ours to mend. Racecheck holds
# about a gigabyte of host memory for every launch of a matrix product that has not been waited for: hence one layer and a
# wait after each launch, which inside a recorded graph there cannot be. No timing of tilings.
set -euo pipefail
[ $# -ge 2 ] || { sed -n '2,7s/^# //p' "$0" >&2; exit 2; }
trainer=$(cd "$1" && pwd)/assay-trainer corpus=$(cd "$2" && pwd) backend=${3:-cuda}
place=$(mktemp -d "${TMPDIR:-/tmp}/assay-sanitize.XXXXXX")
trap 'rm -rf "$place"' EXIT

check() {  # check TOOL PRECISION EXECUTION RECIPE
  local name="$1 $2 $3 $4"
  local at=$place/${name// /-}
  mkdir "$at"
  local depth=2 width=256 sequence=256 tokens=512 options=()
  if [ "$1" = racecheck ]; then
    depth=1 width=128 sequence=128 tokens=128 options=(--force-synchronization-limit 1)
  fi
  cat >"$at/run.toml" <<TOML
devices = 1
backend = "$backend"
precision = "$2"
execution = "$3"
coalesce_tiling = false
model = {depth = $depth, d_model = $width, head_dim = 128, experts = 4, top_k = 2, vocab_size = 512, sequence_len = $sequence, window_pattern = "SL"}
train = {steps = 5, total_batch_tokens = $tokens, device_batch = 1}
fp8 = {recipe = "$4"}
data = {path = "$corpus"}
TOML
  local command=("$trainer" --config "$at/run.toml" --folder "$at/attempt")
  [ "$backend" = cpu ] ||
    command=(compute-sanitizer --tool "$1" "${options[@]}" --kernel-name-exclude kns=cudnn "${command[@]}")
  if "${command[@]}" >"$at/log" 2>&1 && { [ "$backend" = cpu ] || grep -qE 'SUMMARY: 0 (errors|hazards)' "$at/log"; }; then
    echo "$name: clean, $(grep -c '^step ' "$at/log") steps"
  else
    touch "$place/failed"
    echo "$name: NOT CLEAN"
    grep -E '^=====|failed|error' "$at/log" | head -40
  fi
}

for tool in memcheck racecheck; do
  for what in "bf16 dynamic tensorwise" "bf16 static tensorwise" "bf16 eager tensorwise" "fp8_experts dynamic tensorwise" \
              "fp8_experts static tensorwise" "fp8_experts eager tensorwise" "fp8_experts dynamic rowwise" \
              "fp8_experts dynamic blockwise"; do
    while [ "$(jobs -rp | wc -l)" -ge $([ "$tool" = memcheck ] && echo 4 || echo 1) ]; do wait -n; done
    check "$tool" $what &
  done
done
wait
[ ! -e "$place/failed" ]
