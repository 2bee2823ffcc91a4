#!/usr/bin/env python3
"""report.py WORK FILE: what tests/gpu/run.sh has found so far, as FILE.json and FILE.md. Called after every phase."""
import csv
import datetime
import json
import os
import re
import sys


def read(path):
    try:
        with open(path, errors="replace") as file:
            return file.read()
    except FileNotFoundError:
        return ""


def rows(path):
    found = []
    for line in read(path).splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            pass  # cut off in the middle
    return found


STATUS = {"0": "passed", "124": "cut off", "skipped": "not run: no time left", "missing": "not run: no such tool"}
# What the project aims at: engine row, peer variants of which the fastest counts, target and stretch target as ratios.
COMPILED = ["compile", "compile-graphs", "compile-default"]
TARGETS = [
    ("effv2s_cbam training, 224 px, batch 64", ("effv2s_cbam", 224, 64, "train"), [
        ("eager AMP channels-last", ["eager"], 2, 2.5), ("torch.compile", COMPILED, 1.4, 1.7)]),
    ("effv2s_cbam inference, 224 px, batch 256", ("effv2s_cbam", 224, 256, "infer"), [
        ("eager", ["eager"], 2.4, 2.9), ("torch.compile", COMPILED, 1.8, 2.1)]),
    ("effg3 training, 96 px, batch 256", ("effg3", 96, 256, "train"), [
        ("eager", ["eager"], 2.4, 4), ("torch.compile", COMPILED, 1.9, 3)]),
    ("effg0 training, 32 px, batch 256", ("effg0", 32, 256, "train"), [("eager", ["eager"], 5, 8)]),
    ("effg3 inference, 96 px, batch 256", ("effg3", 96, 256, "infer"), [
        ("eager", ["eager"], 3, 5), ("torch.compile with CUDA graphs", COMPILED + ["graphs"], 2, 3.6)]),
    ("effg3 latency, 96 px, batch 1", ("effg3", 96, 1, "infer"), [
        ("torch.compile with CUDA graphs", COMPILED + ["graphs"], 2, None)]),
]


def speed_table(models, peers):
    """One row per target: the figure of both sides and their ratio, or why there is none."""
    table = []
    for name, (config, size, batch, mode), opponents in TARGETS:
        ours = [r for r in models if (r.get("config"), r.get("input"), r.get("batch"), r.get("mode")) ==
                (config, size, batch, mode)]
        for opponent, variants, target, stretch in opponents:
            row = {"what": name, "against": opponent, "target": target, "stretch": stretch}
            theirs = [r for r in peers if (r["model"], r["size"], r["batch"]) == (config, size, batch) and
                      r["mode"] == ("latency" if batch == 1 else mode) and r["variant"] in variants]
            timed = [r for r in theirs if "median_ms" in r]
            if ours:
                row["engine_ms"] = ours[-1]["median_ms"]
            if timed:
                best = min(timed, key=lambda r: r["median_ms"])
                row.update(peer_ms=best["median_ms"], peer_variant=best["variant"])
            elif theirs:
                row["why"] = "; ".join(f"{r['variant']}: {r.get('skipped') or r.get('failed')}" for r in theirs)
            if "engine_ms" in row and "peer_ms" in row:
                row["ratio"] = row["peer_ms"] / row["engine_ms"]
                row["met"] = row["ratio"] >= target
            table.append(row)
    return table


SANITIZERS = ["memcheck", "racecheck", "synccheck", "initcheck"]


def tests_summary(log):
    """Of one or several test programs that wrote to the same file."""
    counts = re.findall(r"^(\d+) passed, (\d+) failed, (\d+) skipped$", log, re.M)
    ok, failed = log.count("[       OK ]"), sorted(set(re.findall(r"^\[  FAILED  \] (\S+?),?(?: |$)", log, re.M)))
    begun = log.count("[ RUN      ]")
    if counts and begun == sum(int(n) for row in counts for n in row):
        text = "{} passed, {} failed, {} skipped".format(*(sum(map(int, column)) for column in zip(*counts)))
    else:
        text = f"{ok} passed before the end"
    return text + (": " + ", ".join(failed[:8]) if failed else "")


def sanitizer(tool, log):
    """What a tool looked at and found; every process under it ends with a summary."""
    tests = sorted(name.removesuffix("_cuda") for name in
                   re.findall(r"^\[       OK \] \S+/(\S+)", log, re.M))
    found = re.findall(r"=+ ERROR SUMMARY: (\d+) error|=+ RACECHECK SUMMARY: .*?\((\d+) error", log)
    return {"tool": tool, "tests": len(tests), "begun": log.count("[ RUN      ]"), "ended": len(found),
            "processes": log.count("= COMPUTE-SANITIZER"), "errors": sum(int(a or b) for a, b in found),
            "covered": " ".join(tests)}


def phase_notes(work, name):
    log = read(f"{work}/{name}.log")
    if name in ("tests", "plans", "feed"):
        return tests_summary(log)
    if name in SANITIZERS:
        s = sanitizer(name, log)
        return (f"{s['errors']} errors; {s['tests']} of {s['begun']} tests; "
                f"{s['ended']} of {s['processes']} processes ended")
    if name in ("tools", "runs", "jpegs"):
        return "; ".join(log.strip().splitlines())[-600:]
    if name in ("checks", "determinism", "pipeline"):
        errors = re.findall(r"^gm_\w+: error: (.*)|^(.* differ: .*)", log, re.M)
        text = "; ".join(filter(None, (a or b for a, b in errors)))
        return text[:600] or (log.strip().splitlines() or [""])[-1][:200] if name == "determinism" else text[:600]
    return ""


def checks_summary(found):
    """Per check and kind of tensor: how many, and the largest relative difference."""
    groups = {}
    for r in found:
        g = groups.setdefault((r["check"], r["mode"], r.get("kind", "loss of a step")),
                              {"n": 0, "beyond": 0, "relative": 0.0, "worst": "", "tolerance": r["tolerance"]})
        g["n"] += 1
        g["beyond"] += not r["within"]
        # JSON has no NaN or infinity: null, which is worse than any number.
        if g["relative"] is not None and (r["relative"] is None or r["relative"] >= g["relative"]):
            g["relative"], g["worst"] = r["relative"], r.get("name") or f"step {r.get('step')}"
    return [{"check": c, "mode": m, "kind": k, **g} for (c, m, k), g in groups.items()]


def number(value, digits=3):
    return "-" if value is None else f"{value:.{digits}g}" if isinstance(value, float) else str(value)


def markdown(out, head, table):
    out.append("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    out += ["| " + " | ".join(number(c) for c in line) + " |" for line in table]
    out.append("")


def ops_table(ops):
    """By batch and mode the slowest ops first: what a step of the network spends in all nodes of that shape."""
    timed = sorted((r for r in ops if "median_us" in r),
                   key=lambda r: (r["batch"], r["mode"], -r["median_us"] * r.get("count", 1)))
    return [[r["network"], r["batch"], r["mode"], r["op"], r["pass"], r["layer"], r.get("count", 1), r["median_us"],
             r["gb_s"], r["tflop_s"], r["share_of_copy"], r["share_of_roof"], r.get("cudnn_us"),
             r["cudnn_us"] / r["median_us"] if r.get("cudnn_us") else None] for r in timed]


# Of `ncu --csv`: the counter, and what it is called here.
COUNTERS = {"gpu__time_duration.sum": "ns", "dram__bytes_read.sum": "read", "dram__bytes_write.sum": "written",
            "sm__inst_issued.avg.pct_of_peak_sustained_active": "issue_percent",
            "sm__warps_active.avg.pct_of_peak_sustained_active": "warps_percent",
            "launch__registers_per_thread": "registers", "launch__waves_per_multiprocessor": "waves",
            "smsp__average_warps_issue_stalled_long_scoreboard_per_issue_active.ratio": "wait_for_memory"}


def counters(log):
    """The kernels of a profile, the slowest first."""
    kernels = {}
    for row in csv.DictReader(log[log.find('"ID"'):].splitlines()) if '"ID"' in log else []:
        name = COUNTERS.get(row.get("Metric Name"))
        if not name:
            continue
        kernel = re.sub(r"gm::cuda::|gm::|<unnamed>::|^void |\(.*", "", row["Kernel Name"])
        found = kernels.setdefault(row["ID"], {"kernel": kernel, "grid": row["Grid Size"], "block": row["Block Size"]})
        found[name] = float(row["Metric Value"].replace(",", ""))
    whole = [k for k in kernels.values() if len(k) == 3 + len(COUNTERS)]
    for k in whole:
        k["us"] = k.pop("ns") / 1e3
        k["gb_s"] = (k.pop("read") + k.pop("written")) / k["us"] / 1e3
    return sorted(whole, key=lambda k: -k["us"])


def main(work, file):
    facts = dict(line.split("=", 1) for line in read(f"{work}/facts").splitlines())
    facts["date"] = datetime.date.today().isoformat()
    phases = [dict(zip(("name", "seconds", "status"), line.split())) for line in read(f"{work}/phases").splitlines()]
    for p in phases:
        p["result"] = STATUS.get(p["status"], "failed, status " + p["status"])
        p["notes"] = phase_notes(work, p["name"]).replace(work + "/", "")  # paths of this run
    models, peers, ops = (rows(f"{work}/{n}.jsonl") for n in ("models", "peers", "ops"))
    cudnn = {(r["network"], r["case"], r["pass"]): r["cudnn_us"] for r in rows(f"{work}/cudnn.jsonl")}
    for r in ops:
        if "network" in r and (r["network"], r["case"], r["pass"]) in cudnn:
            r["cudnn_us"] = cudnn[r["network"], r["case"], r["pass"]]
    checks, pipeline = checks_summary(rows(f"{work}/checks.jsonl")), rows(f"{work}/pipeline.jsonl")
    from_host = rows(f"{work}/from_host.jsonl")
    speed = speed_table(models, peers)

    step = next((r for r in models if r.get("config") == "effg3" and r["mode"] == "train"), None)
    if pipeline and step:
        share = pipeline[-1]["images_per_second"] / step["images_per_second"]
        speed.append({"what": "whole pipeline with augmentation, effg3, batch 256", "against": "the step without data",
                      "target": 0.9, "stretch": 0.98, "ratio": share, "met": share >= 0.9})
    if from_host:
        share = from_host[-1]["share_of_upload"]
        speed.append({"what": "inference of 424 px 8-bit images in host memory, effg3, batch 256",
                      "against": "measured host-to-device copy rate", "target": 0.8, "stretch": 0.95, "ratio": share,
                      "met": share >= 0.8})
    # What moves less than the cache holds is bound by latency, not by bandwidth.
    bound = [r for r in ops if "share_of_copy" in r and r.get("memory_bound") and r["gb_s"] * r["median_us"] >= 64e3]
    if bound:
        worst = min(bound, key=lambda r: r["share_of_copy"])
        speed.append({"what": f"memory-bound ops of 64 MB and more, slowest of {len(bound)}: {worst['op']} "
                      f"{worst['pass']}, {worst['layer']}", "against": "measured copy bandwidth", "target": 0.85,
                      "stretch": 0.9, "ratio": worst["share_of_copy"], "met": worst["share_of_copy"] >= 0.85})
    for direction in ("forward", "backward"):
        pairs = [r for r in ops if r.get("cudnn_us") and r["op"] == "depthwise_conv2d" and r["pass"] == direction]
        if pairs:
            worst = min(pairs, key=lambda r: r["cudnn_us"] / r["median_us"])
            ratio = worst["cudnn_us"] / worst["median_us"]
            speed.append({"what": f"depthwise {direction}, worst of {len(pairs)} shapes", "against": "cuDNN",
                          "target": 2, "stretch": 3, "ratio": ratio, "met": ratio >= 2})

    profiles = {n: counters(read(f"{work}/profile-{n}.log")) for n in ("effv2s_cbam", "effg3")}
    sanitized = [sanitizer(tool, read(f"{work}/{tool}.log")) for tool in SANITIZERS]
    sanitized = [s for s in sanitized if s["processes"]]
    temporary = f"{file}.json.new"
    with open(temporary, "w") as out:
        json.dump({**facts, "phases": phases, "targets": speed, "models": models, "peers": peers, "checks": checks,
                   "sanitizers": sanitized, "pipeline": pipeline, "from_host": from_host, "ops": ops,
                   "profiles": profiles}, out, indent=1)
    os.replace(temporary, f"{file}.json")

    out = [f"# {facts.get('device', '?')}", ""]
    out += [f"- {k}: {v}" for k, v in facts.items() if k != "device"] + [""]
    markdown(out, ["phase", "result", "s", "notes"],
             [[p["name"], p["result"], p["seconds"], p["notes"].replace("|", "\\|")] for p in phases])
    out.append("## Targets\n\nRatios: how many times faster than the peer in the same run, or share of the bound.\n")
    markdown(out, ["what", "against", "engine ms", "peer ms", "ratio", "target", "stretch target", "met"],
             [[r["what"], r["against"], r.get("engine_ms"), r.get("peer_ms"), r.get("ratio"), r["target"],
               r["stretch"], {True: "yes", False: "no"}.get(r.get("met"), r.get("why", "not measured"))]
              for r in speed])
    if models:
        out.append("## Networks\n")
        markdown(out, ["network", "px", "batch", "mode", "precision", "ms", "img/s", "MiB"],
                 [[r["config"], r["input"], r["batch"], r["mode"], r["precision"], r["median_ms"],
                   r["images_per_second"], r["memory_mib"]] for r in models])
    if peers:
        out.append("## PyTorch on the same card\n")
        markdown(out, ["network", "px", "batch", "mode", "variant", "ms", "ms to submit", "img/s", "remark"],
                 [[r["model"], r["size"], r["batch"], r["mode"], r["variant"], r.get("median_ms"), r.get("submit_ms"),
                   r.get("images_per_second"), r.get("skipped") or r.get("failed") or ""] for r in peers])
    if checks:
        out.append("## The card against the CPU (`gm_check`)\n")
        markdown(out, ["check", "mode", "kind", "tensors", "beyond", "largest relative", "tolerance", "where"],
                 [[c["check"], c["mode"], c["kind"], c["n"], c["beyond"], c["relative"], c["tolerance"], c["worst"]]
                  for c in checks])
    if sanitized:
        out.append("## Sanitizers: our own kernels at small shapes\n")
        markdown(out, ["tool", "errors", "tests passed", "begun", "processes ended", "of", "covered"],
                 [[s["tool"], s["errors"], s["tests"], s["begun"], s["ended"], s["processes"], s["covered"]]
                  for s in sanitized])
    if ops:
        out.append("## Ops at the networks' shapes\n")
        ceilings = next((r for r in ops if "copy_gb_s" in r), {})
        out.append(", ".join(f"{k} {number(v, 4)}" for k, v in ceilings.items() if k != "device") + "\n")
        markdown(out, ["network", "batch", "mode", "op", "pass", "layer", "times", "us", "GB/s", "TFLOP/s", "of copy",
                       "of roof", "cuDNN us", "ratio"], ops_table(ops))
    for name, kernels in profiles.items():
        if kernels:
            copy = next((r["copy_gb_s"] for r in ops if "copy_gb_s" in r), None)
            out.append(f"## Our kernels by the hardware's counters: {name}, a training step, cold caches\n")
            markdown(out, ["kernel", "grid", "block", "us", "DRAM GB/s", "of copy", "issue %", "warps %", "registers",
                           "waves", "waits for memory an instruction"],
                     [[k["kernel"], k["grid"], k["block"], k["us"], k["gb_s"], copy and k["gb_s"] / copy,
                       k["issue_percent"], k["warps_percent"], int(k["registers"]), k["waves"], k["wait_for_memory"]]
                      for k in kernels[:60]])
    for name in ("roofline", "roofline-g3"):
        text = read(f"{work}/{name}.log")
        if text.startswith("#"):
            out.append(text.replace("\n#", "\n##").replace("# ", "## ", 1))
    with open(f"{file}.md.new", "w") as target:
        target.write("\n".join(out) + "\n")
    os.replace(f"{file}.md.new", f"{file}.md")


main(*sys.argv[1:])
