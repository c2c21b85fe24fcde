#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Makes tables and verdicts of what the benchmarks measured.

Usage: report.py FOLDER PAGE

Reads FOLDER/*.jsonl, writes FOLDER/results.json and the part of PAGE between
its markers, and says which goals hold; the last line is the sum of it.
"""
import datetime
import json
import math
import os
import platform
import re
import statistics
import subprocess
import sys

BEGIN, END = "<!-- begin: make bench -->", "<!-- end: make bench -->"
STACKS = ["nbdkit-tls", "qemu-tls", "stunnel"]
DIRECT = ["qemu-native", "qemu-uring", "storage-daemon"]


def load(folder):
    rows = []
    for name in sorted(os.listdir(folder)):
        if name.endswith(".jsonl"):
            with open(os.path.join(folder, name)) as f:
                rows += [json.loads(line) for line in f]
    return rows


def median(values):
    return statistics.median(values)


def geomean(values):
    return math.exp(statistics.fmean(math.log(v) for v in values))


class Bench:
    """The cells of one benchmark: value[job][server][field] by round."""

    def __init__(self, rows, name):
        self.jobs, self.servers, self.cells = [], [], {}
        for r in rows:
            if r["bench"] != name or "server" not in r:
                continue
            if r["job"] not in self.jobs:
                self.jobs.append(r["job"])
            if r["server"] not in self.servers:
                self.servers.append(r["server"])
            key = r["job"], r["server"]
            self.cells.setdefault(key, {})[r["round"]] = r

    def __bool__(self):
        return bool(self.cells)

    def values(self, job, server, field):
        return [c[field] for c in self.cells[job, server].values()]

    def median(self, job, server, field):
        return median(self.values(job, server, field))

    def ratios(self, job, ours, other, field):
        """Pair by pair: what was measured in the same round."""
        a, b = self.cells[job, ours], self.cells[job, other]
        return [a[n][field] / b[n][field] for n in a
                if n in b and b[n][field] > 0]

    def comparable(self, job, server):
        """Writes into a page cache are no comparison."""
        buffered = any(self.values(job, server, "buffered"))
        return not (buffered and "read" not in job)

    def best(self, job, peers):
        peers = [p for p in peers if (job, p) in self.cells and
                 self.comparable(job, p)]
        return max(peers, key=lambda p: self.median(job, p, "mib_s"))


def compare(bench, ours, peers):
    """Ours beside the best of peers, for each job."""
    out = []
    for job in bench.jobs:
        if (job, ours) not in bench.cells:
            continue
        best = bench.best(job, peers)
        speed = bench.ratios(job, ours, best, "mib_s")
        cpu = bench.ratios(job, ours, best, "cpu_us_op")
        out.append({
            "job": job, "best": best, "ratio": median(speed),
            "least": min(speed), "most": max(speed),
            "cpu_ratio": median(cpu) if cpu else None,
            "cpu_us_op": bench.median(job, ours, "cpu_us_op"),
            "best_cpu_us_op": bench.median(job, best, "cpu_us_op"),
            "mean_us": bench.median(job, ours, "mean_us"),
            "p99_us": bench.median(job, ours, "p99_us"),
        })
    return out


# ---- goals ----------------------------------------------------------------------


class Goals:
    def __init__(self):
        self.rows = []

    def add(self, what, value, limit, least, text=None, note=""):
        """least: the value must be at least limit, else at most."""
        holds = value >= limit if least else value <= limit
        sign = "≥" if least else "≤"
        self.rows.append({
            "goal": what, "limit": f"{sign} {limit:g}", "value": value,
            "text": text or f"{value:.2f}", "holds": holds, "note": note})


def speed_goals(goals, name, table, speed, cpu):
    worst = min(table, key=lambda r: r["ratio"])
    goals.add(f"{name}: throughput, geometric mean",
              geomean(r["ratio"] for r in table), speed, True)
    goals.add(f"{name}: throughput, worst job", worst["ratio"], 1.0, True,
              note=f"{worst['job']} against {worst['best']}; "
              f"{sum(r['ratio'] < 1 for r in table)} of {len(table)} jobs "
              "below 1.0")
    goals.add(f"{name}: CPU per operation, geometric mean",
              geomean(r["cpu_ratio"] for r in table if r["cpu_ratio"]), cpu,
              False)


def tls_goals(goals, rows):
    bench = Bench(rows, "tls")
    alone = {job: [r for r in rows if r["bench"] == "tls" and
                   r["job"] == job] for job in ("stream", "ping")}
    if not bench or not alone["stream"]:
        return
    stream = median(r["cpu_us_mib"] for r in alone["stream"])
    ours = bench.median("1m-read-4x8", "detour-peer", "cpu_us_op")
    goals.add("redirected, 1 MiB x 8 x 4: per CPU second, of a bare TLS "
              "stream", stream / ours, 0.7, True,
              note=f"{stream:.0f} µs CPU per MiB bare, {ours:.0f} ours")
    ping = median(r["round_us"] for r in alone["ping"])
    added = (bench.median("4k-read-qd1", "detour-peer", "mean_us") -
             bench.median("4k-read-qd1", "detour", "mean_us"))
    goals.add("redirected, 4 KiB at depth 1: added latency, in TLS "
              "ping-pongs", added / ping, 2.0, False,
              note=f"{added:.0f} µs added, a ping-pong takes {ping:.0f} µs")


def switch_table(rows):
    gaps = {}
    for r in rows:
        if r["bench"] == "switch" and "gap_ms" in r:
            gaps.setdefault((r["event"], r["depth"]), []).append(r["gap_ms"])
    return [{"event": e, "depth": d, "times": len(v), "median": median(v),
             "longest": max(v)} for (e, d), v in gaps.items()]


def switch_goals(goals, table):
    for events, limit in ((["path errors"], 50),
                          (["planned redirect", "planned return"], 20)):
        found = [r for r in table if r["event"] in events]
        if found:
            worst = max(found, key=lambda r: r["longest"])
            goals.add(f"switch, {' and '.join(events)}: longest gap, ms",
                      worst["longest"], limit, False,
                      f"{worst['longest']}",
                      f"depth {worst['depth']}, {worst['times']} times, "
                      f"median {worst['median']:g}")


def cost_goals(goals, rows):
    cost = [r for r in rows if r["bench"] == "cost"]
    idle = [r for r in cost if r["what"] == "idle"]
    busy = [r for r in cost if r["what"] == "proxy busy"]
    if idle:
        worst = max(idle, key=lambda r: r["percent_each"])
        goals.add("idle: CPU for each LUN and host, percent of a core",
                  worst["percent_each"], 0.05, False,
                  f"{worst['percent_each']:.3f}",
                  ", ".join(f"{r['luns']} LUNs: {r['percent_each']:.3f}"
                            for r in idle))
    for r in busy:
        limit = 16 + r["connections"]
        goals.add("memory of the busy proxy, MiB", r["kib"] / 1024, limit,
                  False, f"{r['kib'] / 1024:.1f}",
                  f"16 + 1 for each of {r['connections']} connections")


# ---- text -----------------------------------------------------------------------


def speed_text(bench, job, server):
    if (job, server) not in bench.cells:
        return "-"
    if job.startswith(("1m", "128k")):
        text = f"{bench.median(job, server, 'mib_s'):.0f} MiB/s"
    else:
        text = f"{bench.median(job, server, 'iops') / 1000:.1f} k"
    if not bench.comparable(job, server):
        text = f"({text})"
    return text


def bench_text(bench, ours, table, others):
    names = [s for s in bench.servers if s != ours and s in others]
    lines = ["| job | " + " | ".join([f"**{ours}**"] + names) +
             " | mean, p99 µs | CPU µs/op, best peer's | ratio (spread) |",
             "|---" * (len(names) + 5) + "|"]
    for r in table:
        job = r["job"]
        lines.append(
            f"| {job} | " +
            " | ".join(speed_text(bench, job, s) for s in [ours] + names) +
            f" | {r['mean_us']:.0f}, {r['p99_us']:.0f} | "
            f"{r['cpu_us_op']:.1f}, {r['best_cpu_us_op']:.1f} | "
            f"{r['ratio']:.2f} ({r['least']:.2f}–{r['most']:.2f}) "
            f"{r['best']} |")
    return lines


def machine():
    def version(*command):
        try:
            out = subprocess.run(command, capture_output=True, text=True)
        except OSError:
            return None
        found = re.search(r"\d+\.\d[\w.]*", out.stdout + out.stderr)
        return f"{command[0]} {found.group()}" if found else None

    cpu = "?"
    with open("/proc/cpuinfo") as f:
        for line in f:
            if line.startswith("model name"):
                cpu = line.split(":", 1)[1].strip()
    tools = [("nbdkit", "--version"), ("qemu-nbd", "--version"),
             ("nbd-server", "-V"), ("stunnel4", "-version"),
             ("fio", "--version"), ("openssl", "version")]
    return {"date": datetime.date.today().isoformat(), "cpu": cpu,
            "cpus": os.cpu_count(), "kernel": platform.release().split("-")[0],
            "versions": [v for v in (version(*t) for t in tools) if v]}


def page_text(result, benches, tables, goals, switches):
    m = result["machine"]
    lines = [f"Measured {m['date']}: {m['cpus']} CPUs ({m['cpu']}), Linux "
             f"{m['kernel']}, {', '.join(m['versions'])}.", "",
             "| goal | limit | measured | holds | |", "|---|---|---|---|---|"]
    for g in goals.rows:
        lines.append(f"| {g['goal']} | {g['limit']} | {g['text']} | "
                     f"{'yes' if g['holds'] else '**no**'} | {g['note']} |")
    for name, ours, others in benches:
        cells = result["benches"][name].cells
        lines += ["", f"### {name}", "", "Medians of "
                  f"{max(len(c) for c in cells.values())} rounds; ( ): into "
                  "the page cache, not compared.", ""]
        lines += bench_text(result["benches"][name], ours, tables[name],
                            others)
    if switches:
        lines += ["", "### switch", "",
                  "| event | in flight | times | median ms | longest ms |",
                  "|---|---|---|---|---|"]
        lines += [f"| {r['event']} | {r['depth']} | {r['times']} | "
                  f"{r['median']:g} | {r['longest']} |" for r in switches]
    cost = [r for r in result["rows"] if r["bench"] == "cost"]
    if cost:
        lines += ["", "### cost", "", "| what | figure |", "|---|---|"]
        for r in cost:
            if "kib" in r:
                lines.append(f"| {r['what']} | {r['kib'] / 1024:.1f} MiB |")
            else:
                lines.append(f"| CPU idle, {r['luns']} LUNs, each | "
                             f"{r['percent_each']:.3f} % |")
    return lines


def write_page(page, lines):
    text = f"# Speed\n\n{BEGIN}\n{END}\n"
    if os.path.exists(page):
        with open(page) as f:
            text = f.read()
    head, rest = text.split(BEGIN, 1)
    tail = rest.split(END, 1)[1]
    with open(page, "w") as f:
        f.write(head + BEGIN + "\n" + "\n".join(lines) + "\n" + END + tail)


def main():
    folder, page = sys.argv[1:]
    rows = load(folder)
    goals = Goals()
    plan = [("local", "detour", DIRECT,
             DIRECT + ["nbd-server", "nbdkit-file", "device"]),
            ("loop", "detour", DIRECT, DIRECT + ["device"]),
            ("zram", "detour", DIRECT, DIRECT + ["device"]),
            ("bare", "detour", ["bare"], ["bare"]),
            ("redirected", "detour-peer", STACKS, STACKS + ["detour"])]
    benches, tables, shown = {}, {}, []
    for name, ours, peers, others in plan:
        bench = Bench(rows, name)
        if bench:
            benches[name] = bench
            tables[name] = compare(bench, ours, peers)
            shown.append((name, ours, others))
    if "local" in tables:
        speed_goals(goals, "local", tables["local"], 1.2, 0.85)
    if "bare" in tables:
        goals.add("local, against lun/ alone: throughput, geometric mean",
                  geomean(r["ratio"] for r in tables["bare"]), 0.97, True)
    if "redirected" in tables:
        speed_goals(goals, "redirected", tables["redirected"], 1.5, 0.6)
    tls_goals(goals, rows)
    switches = switch_table(rows)
    switch_goals(goals, switches)
    cost_goals(goals, rows)

    result = {"machine": machine(), "goals": goals.rows, "tables": tables,
              "switch": switches, "rows": rows}
    with open(os.path.join(folder, "results.json"), "w") as f:
        json.dump(result, f, indent=1)
    result["benches"] = benches
    write_page(page, page_text(result, shown, tables, goals, switches))
    for g in goals.rows:
        print(f"bench: {'holds' if g['holds'] else 'FAILS'}: {g['goal']}: "
              f"{g['text']} ({g['limit']})"
              f"{'; ' + g['note'] if g['note'] else ''}")
    held = sum(g["holds"] for g in goals.rows)
    print(f"bench: {held} of {len(goals.rows)} goals hold")


main()
