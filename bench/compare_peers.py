#!/usr/bin/env python3
"""Measures the engine and a PyTorch peer on the same GPU, alternating, and writes one JSON line per measurement.

The peer is a script that prints one JSON line with tok_s, ms, mfu, peak_mib and gpu for
--precision bf16|fp8 --compile none|static|dynamic --core, and imports nanochat from $NANOCHAT. Neither is part of this
repository:

  bench/compare_peers.py --bench build/bin/engine_bench --peer moe_peer.py --nanochat ~/nanochat --out h100.jsonl
  ... --cells bf16:dynamic fp8_experts:dynamic --rounds 3 --ours="--wgrad fp8"

A cell is precision:execution. Absolute figures move between machines: only the ratios of one file mean something, and
they are printed at the end.
"""
import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys

# The peer's dense layers stay in BF16 for fp8_experts: with its own FP8 for them (--dense-fp8) it is slower.
PEER_PRECISION = {"bf16": ["--precision", "bf16"], "fp8_experts": ["--precision", "fp8"],
                  "fp8_noexperts": ["--precision", "bf16", "--dense-fp8"]}
PEER_EXECUTION = {"dynamic": "dynamic", "static": "static", "eager": "none"}


def cell(text):
    precision, _, execution = text.partition(":")
    if precision not in PEER_PRECISION or execution not in PEER_EXECUTION:
        raise argparse.ArgumentTypeError(f"{text!r}: a cell is {'|'.join(PEER_PRECISION)}:{'|'.join(PEER_EXECUTION)}")
    return precision, execution


def options():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--bench", required=True, help="engine_bench")
    p.add_argument("--peer", required=True, help="the peer's script")
    p.add_argument("--nanochat", required=True, help="a checkout of nanochat")
    p.add_argument("--out", required=True, help="lines are added to this file as they come")
    p.add_argument("--cells", nargs="+", type=cell, default=[cell("bf16:dynamic"), cell("fp8_experts:dynamic")])
    p.add_argument("--depth", type=int, default=12)
    p.add_argument("--rounds", type=int, default=1, help="how often every cell is measured on both sides")
    p.add_argument("--ours", default="", help="more options for engine_bench")
    p.add_argument("--timeout", type=int, default=300, help="seconds for one measurement")
    return p.parse_args()


def last_json_line(command, env, timeout):
    """The last JSON line that a command prints, or a line with the end of its error output."""
    try:
        done = subprocess.run(command, env=env, timeout=timeout, text=True, capture_output=True)
    except subprocess.TimeoutExpired:
        return {"error": f"no result within {timeout} s: {shlex.join(command)}"}
    except OSError as e:
        return {"error": str(e)}
    for line in reversed(done.stdout.splitlines()):
        if line.startswith("{"):
            return json.loads(line)
    said = (done.stderr or done.stdout).strip().splitlines()
    return {"error": f"exit status {done.returncode}: {said[-1] if said else 'no output'}"}


def measure_ours(o, precision, execution):
    command = [o.bench, "--backend", "cuda", "--depth", str(o.depth), "--precision", precision, "--execution", execution]
    return last_json_line(command + shlex.split(o.ours), os.environ, o.timeout)


def measure_peer(o, precision, execution):
    command = [sys.executable, o.peer, "--core", "--depth", str(o.depth), "--compile", PEER_EXECUTION[execution]]
    line = last_json_line(command + PEER_PRECISION[precision], {**os.environ, "NANOCHAT": o.nanochat}, o.timeout)
    if "gpu" in line:
        line["device"] = line.pop("gpu")
    return line


def main():
    o = options()
    rates = {}
    with open(o.out, "a", encoding="utf-8") as out:
        for round_number in range(o.rounds):
            for precision, execution in o.cells:
                for engine, measure in (("assay", measure_ours), ("pytorch", measure_peer)):
                    name = f"{precision}:{execution}"
                    line = {"engine": engine, "cell": name, "round": round_number, **measure(o, precision, execution)}
                    print(json.dumps(line), file=out, flush=True)
                    print(f"{name} {engine}: {line.get('error') or round(line['tok_s'])}", file=sys.stderr)
                    if "tok_s" in line:
                        rates.setdefault((name, engine), []).append(line["tok_s"])
    for precision, execution in o.cells:
        name = f"{precision}:{execution}"
        ours, peer = rates.get((name, "assay")), rates.get((name, "pytorch"))
        if not ours or not peer:
            sys.exit(f"{name}: not measured on both sides, see {o.out}")
        a, b = statistics.median(ours), statistics.median(peer)
        print(f"{name}: {a:.0f} tok/s, peer {b:.0f} tok/s, ratio {a / b:.2f} (medians of {len(ours)})")


if __name__ == "__main__":
    main()
