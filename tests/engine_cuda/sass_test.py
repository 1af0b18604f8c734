"""Reads the machine code of the matrix kernels: FP8 products must run on QGMMA, BF16 ones on HGMMA, and no product may keep
values in local memory (a register array that was spilled or indexed at run time).

usage: sass_test.py CUOBJDUMP LIBRARY
"""
import re
import subprocess
import sys
from collections import Counter, defaultdict

# Kernels and the types of operands that each must exist for. Mangled names: a length, the name, "I" and the configuration.
FAMILIES = {"grouped_kernel": "012", "codes_kernel": "12", "wgrad_kernel": "012", "wgrad_balanced_kernel": "012"}
PRODUCT = re.compile(r"\d(" + "|".join(FAMILIES) + ")I")
TYPE = re.compile(r"8GemmTypeE(\d)")  # engine/ops/cuda/product.cuh: bf16, e4m3_e4m3, e5m2_e4m3
INSTRUCTION = re.compile(r"\b(QGMMA|HGMMA|IGMMA|HMMA|QMMA|LDL|STL)\b")


def main(cuobjdump, library):
    counts = defaultdict(Counter)
    dump = subprocess.Popen([cuobjdump, "--dump-sass", library], stdout=subprocess.PIPE, text=True)
    kernel = None
    for line in dump.stdout:
        if "Function :" in line:
            name = line.split("Function :")[1].strip()
            kernel = name if PRODUCT.search(name) else None
            if kernel:
                counts[kernel]  # a kernel without any such instruction is seen too
        elif kernel and (found := INSTRUCTION.search(line)):
            counts[kernel][found.group(1)] += 1
    if dump.wait() != 0:
        sys.exit(f"{cuobjdump} failed on {library}")
    faults, made = [], Counter()
    for name, seen in counts.items():
        types = TYPE.search(name)
        if not types:
            faults.append(f"no GemmType in the name of {name}")
            continue
        wanted = "HGMMA" if types.group(1) == "0" else "QGMMA"
        made[PRODUCT.search(name).group(1), types.group(1)] += 1
        others = {i: n for i, n in seen.items() if i != wanted}
        if not seen[wanted] or others:
            faults.append(f"{name}: {seen[wanted]} {wanted}, and {others or 'nothing else'}")
    print(f"{len(counts)} matrix kernels, {sum(n for (_, t), n in made.items() if t != '0')} of them FP8")
    for family, wanted in FAMILIES.items():
        faults += [f"{family}: none with operands of type {t}" for t in wanted if not made[family, t]]
    sys.exit("\n".join(faults) or 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
