#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Draw what make bench has measured: vm/bench-plot.py JSON OUT

Writes OUT.svg and OUT.png: for each operation on private memory a bar for the
unmodified modules and one for ours, in instructions, on a logarithmic scale.
"""

import json
import sys

import matplotlib

matplotlib.use("Agg")
# The same input gives the same file.
matplotlib.rcParams["svg.hashsalt"] = "bench"

import matplotlib.pyplot as plt  # noqa: E402

# In the order of the tables that vm/bench.sh prints.
PER_PAGE = {
    "set_private": "set private",
    "first_touch": "first touch by the guest",
    "touch_allocated": "touch after fallocate",
    "fallocate": "fallocate",
    "punch": "punch hole (mapped)",
    "to_shared": "convert to shared (mapped)",
    "to_private": "convert to private again",
    "touch_again": "touch after converting back",
    "prefault": "prefault",
    "delete_slot": "delete the memslot",
    "close": "last close",
    "vm_destroy": "destroy the VM",
    "touch_moved": "touch after a handover",
}
EACH = {
    "scatter_to_shared": "convert one page of many",
    "scatter_to_private": "convert it back",
    "vm_create": "VM creation to 1st instruction",
    "vm_destroy_unused": "destroy an unused VM",
    "move": "move, whole VM",
}
SERIES = (("base", "unmodified 6.12", "#b0b0b0"), ("ours", "this project", "#1f77b4"))


def instructions(results, mib):
    """By modules and operation, for each page or other unit."""
    return {
        (r["modules"], r["operation"]): r["busy_ns"] / r["pages"]
        for r in results
        if r["kind"] == "time" and r["backing"] == "private" and r["mib"] == mib
    }


def draw(axes, values, names, least, title):
    """A pair of bars for each operation that was measured."""
    operations = [op for op in names if ("ours", op) in values]
    for i, (modules, label, colour) in enumerate(SERIES):
        where = [y + (i - 0.5) * 0.4 for y in range(len(operations))]
        widths = [values.get((modules, op), 0) for op in operations]
        bars = axes.barh(where, widths, 0.4, label=label, color=colour)
        texts = [f"{w:,.0f}" if w >= 10 else f"{w:.3f}" if w < 0.1 and w else f"{w:.1f}" if w else "none"
                 for w in widths]
        axes.bar_label(bars, texts, padding=3, fontsize=8)
    axes.set_yticks(range(len(operations)), [names[op] for op in operations])
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlim(least, axes.get_xlim()[1] * 2)
    axes.set_title(title, fontsize=10, loc="left")
    axes.grid(axis="x", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    with open(sys.argv[1], encoding="utf-8") as file:
        results = json.load(file)
    mib = max(r["mib"] for r in results if r["operation"] == "first_touch")
    values = instructions(results, mib)

    figure, (top, bottom) = plt.subplots(
        2, figsize=(9, 9), height_ratios=(len(PER_PAGE), len(EACH)),
        layout="constrained")
    draw(top, values, PER_PAGE, 0.001,
         f"Instructions for each 4 KiB page, {mib} MiB of private memory")
    draw(bottom, values, EACH, 100, "Instructions each")
    bottom.legend(loc="lower right", fontsize=9)
    for kind, extra in (("svg", {"Date": None}), ("png", {})):
        figure.savefig(f"{sys.argv[2]}.{kind}", dpi=100, metadata=extra)


main()
