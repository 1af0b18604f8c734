#!/usr/bin/env bash
# The whole product once, on real text, in a temporary home: prepare data, queue, watch, retry, report.
set -euo pipefail
bin=${1:?usage: demo.sh FOLDER_OF_PROGRAMS}
examples=$(cd "$(dirname "$0")" && pwd)
text=/usr/share/doc/linux-doc/Documentation
[ -d "$text" ] || { echo "demo: $text is missing: run ./run setup" >&2; exit 1; }

place=$(mktemp -d "${TMPDIR:-/tmp}/assay-demo.XXXXXX")
export ASSAY_HOME=$place/home
PATH=$bin:$PATH
trap 'assay down >/dev/null 2>&1 || true' EXIT

step() { printf '\n\033[1m$ %s\033[0m\n' "$*"; "$@"; }

echo "Working in $place (kept afterwards; the report will be in $place/report)"
cd "$place"
step assay up --allow-fault-injection
step assay data prepare "$text" --output corpus --vocab-size 2048 --max-bytes 4000000 --val-fraction 0.05
step assay plan "$examples/ablation_cpu.toml"
step assay enqueue "$examples/ablation_cpu.toml" --tag demo
step assay watch --until-done
step assay ls
step assay retry --failed --tag demo
step assay watch --until-done
step assay show moe_bf16_static_tight
step assay report --tag demo --output report
printf '\n'
sed -n '/^## Takeaways/,/^## Artifacts/{/^## Artifacts/d;p}' report/report.md
printf 'The report: %s\n' "$place/report/report.md"
