#!/usr/bin/env bash
# An ablation of examples/ through the whole product on this machine: daemon, queue, worker, trainers, report.
#   gpu_ablation.sh PROGRAMS CORPUS REPORT [--spec NAME] [--steps N] [--tiny]
# PROGRAMS: folder of assay, assayd, assay-worker, assay-trainer (`./run dist` packs them for another machine).
# CORPUS:   folder of token shards with a vocabulary of 32,768; for one from text, where assay-data is:
#             assay data prepare /usr/share/doc/linux-doc/Documentation -o corpus --vocab-size 32768
#           (8.2 million tokens, 17 MB: 140 steps read it 9 times, 360 steps 23 times; losses fall below those of fresh text)
# REPORT:   folder the report is written into, with the queue as JSON and the daemon's log; also if runs failed.
# --spec NAME: the spec file, without .toml: moe_fp8_ablation (as without it), moe_modes, loss_lambdas, loss_rates, loss_precision.
# --steps N: N optimizer steps instead of 140, and as much less or more where a spec has others, where GPU time is scarce.
# --tiny:    a small model on the CPU instead, a few seconds a run: tries this script where there is no GPU.
set -euo pipefail
usage() { sed -n '3,11s/^# //p' "$0" >&2; exit 2; }
[ $# -ge 3 ] || usage
bin=$(cd "$1" && pwd) corpus=$(cd "$2" && pwd)
mkdir -p "$3" && report=$(cd "$3" && pwd)
examples=$(cd "$(dirname "$0")" && pwd)
shift 3
name=moe_fp8_ablation steps=140 tiny=
while [ $# -gt 0 ]; do
  case $1 in
    --spec) [ $# -ge 2 ] && [ -f "$examples/$2.toml" ] || usage; name=$2; shift 2 ;;
    --steps) [ $# -ge 2 ] && [[ $2 =~ ^[1-9][0-9]*$ ]] || usage; steps=$2; shift 2 ;;
    --tiny) tiny=1; shift ;;
    *) usage ;;
  esac
done

place=$(mktemp -d "${TMPDIR:-/tmp}/assay-ablation.XXXXXX")
export ASSAY_HOME=$place/home
PATH=$bin:$PATH
finish() {
  assay down >/dev/null 2>&1 || true
  cp "$ASSAY_HOME"/*.log "$report" 2>/dev/null || true
}
trap finish EXIT

spec=$report/$name.toml
sed -e "s/^\(train = {steps =\) 140/\1 $steps/" -e "s/^train.steps = 360/train.steps = $((steps * 360 / 140))/" \
    -e "s/^\(train = {steps =\) 500/\1 $((steps * 500 / 140))/" \
    -e "s|path = \"corpus\"|path = \"$corpus\"|" "$examples/$name.toml" >"$spec"
if [ "$tiny" ]; then
  sed -i -e 's/^devices = 1/&\nbackend = "cpu"/' -e 's/^model = {depth = 12,/model = {depth = 2, head_dim = 64,/' \
      -e 's/sequence_len = 2048/sequence_len = 128/' \
      -e 's/total_batch_tokens = [0-9]*, device_batch = 32/total_batch_tokens = 512, device_batch = 4/' \
      -e 's/val_tokens = [0-9]*/val_tokens = 2048/' "$spec"
fi

assay doctor || true               # says what is missing; whether the runs can start is for enqueue to say
assay up --allow-fault-injection
assay devices
assay plan "$spec"
assay enqueue "$spec" --tag ablation
outcome=0
assay wait --tag ablation || outcome=$?
assay ls --tag ablation
assay ls --tag ablation --json >"$report/runs.json"
assay report --tag ablation --output "$report"
sed -n '/^## Takeaways/,/^## Artifacts/{/^## Artifacts/d;p}' "$report/report.md"
exit "$outcome"
