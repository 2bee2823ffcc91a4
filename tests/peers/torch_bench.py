#!/usr/bin/env python3
"""PyTorch's speed on the networks of models/*.yaml: eager with channels-last and automatic mixed precision, the same in
CUDA graphs, and torch.compile. One JSON object a line, written as soon as it is known; every measurement is a process
of its own, so that one that hangs or runs out of time loses nothing but itself.

    tests/peers/torch_bench.py --out torch.jsonl                  # the cases of the speed targets, on the GPU
    tests/peers/torch_bench.py --device cpu --case models/effg0.yaml:32:4:train --variants eager --seconds 1

    tests/peers/torch_bench.py --when free --out torch.jsonl &    # prepared beside other work, timed from: touch free

    tests/peers/torch_bench.py --depthwise ops.jsonl              # depthwise convolutions of `gm_bench --ops --json`

A case is MODEL:SIZE:BATCH:MODE, mode train, infer or latency (inference with a wait after every call); with :VARIANT
behind it, of that variant alone.
Networks come from torch_network.py; --library takes timm's where it is the same one. --depthwise times cuDNN: PyTorch
sends every channels-last depthwise convolution to it.
"""
import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time

CASES = [  # in the order of their worth when time runs out
    "models/effv2s_cbam.yaml:224:64:train", "models/effv2s_cbam.yaml:224:256:infer", "models/effg3.yaml:96:256:train",
    "models/effg3.yaml:96:256:infer", "models/effg3.yaml:96:1:latency", "models/effg0.yaml:32:256:train",
]
VARIANTS = ["eager", "graphs", "compile", "compile-graphs", "compile-default"]
READY = "prepared"
SAME = {"models/effv2s.yaml": {"timm": "tf_efficientnetv2_s"}}  # torchvision pads on both sides: another function

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
parser.add_argument("--case", action="extend", nargs="+",
                    help="MODEL:SIZE:BATCH:MODE[:VARIANT]; default: the speed targets")
parser.add_argument("--variants", default=",".join(VARIANTS), help="default: %(default)s")
parser.add_argument("--precision", choices=["bf16", "f32"], help="default: bf16 on the GPU, f32 on the CPU")
parser.add_argument("--library", choices=["timm"], help="where SAME lists the network")
parser.add_argument("--seconds", type=float, default=3, help="of timing for each figure")
parser.add_argument("--limit", type=float, default=240, help="seconds for one figure, compilation included")
parser.add_argument("--total", type=float, default=1e9, help="seconds for all")
parser.add_argument("--when", metavar="FILE", help="prepare all cases at once, write FILE.prepared, and time them one "
                    "after the other when FILE is there; --limit: seconds that those still being prepared then have")
parser.add_argument("--out", help="file to append to; default: standard output")
parser.add_argument("--depthwise", metavar="FILE", help="time the depthwise_conv2d rows of this file")
parser.add_argument("--one", help=argparse.SUPPRESS)
args = parser.parse_args()
os.chdir(os.path.dirname(os.path.abspath(__file__)) + "/../..")
precision = args.precision or ("bf16" if args.device == "cuda" else "f32")


def build(torch, model):
    name = SAME.get(model, {}).get(args.library)
    if name:
        import timm

        return timm.create_model(name), name
    sys.path.insert(0, "tests/peers")
    from torch_network import Network

    return Network(model), "torch_network.py"


def quantiles(times):
    times = sorted(times)
    at = lambda q: times[round(q * (len(times) - 1))] * 1e3
    return {"median_ms": at(0.5), "p5_ms": at(0.05), "p95_ms": at(0.95), "runs": len(times)}


def measure(torch, step, latency):
    """Steps one after the other, the device never idle for want of a wait; latency: a wait after every step."""
    cuda = args.device == "cuda"
    wait = torch.cuda.synchronize if cuda else lambda: None
    for _ in range(3):
        step()
    wait()
    start = time.perf_counter()
    step()
    wait()
    count = max(5, min(1000, int(args.seconds / max(1e-5, time.perf_counter() - start))))
    if latency or not cuda:
        times = []
        for _ in range(count):
            start = time.perf_counter()
            step()
            wait()
            times.append(time.perf_counter() - start)
        return quantiles(times)
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(count + 1)]
    submit = time.perf_counter()
    marks[0].record()
    for mark in marks[1:]:
        step()
        mark.record()
    submit = (time.perf_counter() - submit) / count
    wait()
    times = [a.elapsed_time(b) / 1e3 for a, b in zip(marks, marks[1:])]
    # The host's share: where it is close to the median, the step is bound by launches.
    return {**quantiles(times), "submit_ms": submit * 1e3}


def one(case, variant):
    import torch

    cuda = args.device == "cuda"
    model, size, batch, mode = case.rsplit(":", 3)
    size, batch = int(size), int(batch)
    row = {"peer": "pytorch", "version": torch.__version__, "model": os.path.basename(model)[:-5], "size": size,
           "batch": batch, "mode": mode, "variant": variant, "precision": precision,
           "device": torch.cuda.get_device_name(0) if cuda else "cpu"}
    if cuda:
        row["cudnn"] = torch.backends.cudnn.version()
        torch.backends.cudnn.benchmark = True
    if variant.startswith("compile") and not hasattr(torch, "compile"):
        return {**row, "skipped": f"torch {torch.__version__} has no torch.compile"}
    if variant == "graphs" and not cuda:
        return {**row, "skipped": "CUDA graphs need a GPU"}
    torch.manual_seed(0)
    net, row["network"] = build(torch, model)
    train = mode == "train"
    half = precision == "bf16"
    net = net.to(args.device, memory_format=torch.channels_last).train(train)
    if half and not train:
        net = net.bfloat16()  # faster than casting the weights in every call
    x = (torch.rand(batch, 3, size, size, device=args.device) * 255).to(memory_format=torch.channels_last)
    if half and not train:
        x = x.bfloat16()
    head = [m for m in net.modules() if isinstance(m, torch.nn.Linear)][-1]
    y = torch.arange(batch, device=args.device) % head.out_features
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-4, **({"fused": True, "capturable": True} if cuda else {}))

    def forward():
        if not (half and train):
            return net(x)
        with torch.autocast(args.device, torch.bfloat16):
            return net(x)

    if variant.startswith("compile"):
        # max-autotune captures CUDA graphs too; the other modes compile in a fraction of its time.
        modes = {"compile": "max-autotune", "compile-graphs": "reduce-overhead", "compile-default": "default"}
        forward = torch.compile(forward, mode=modes[variant])

    def step():
        if not train:
            with torch.no_grad():
                return forward()
        optimizer.zero_grad(set_to_none=True)
        torch.nn.functional.cross_entropy(forward().float(), y).backward()
        optimizer.step()

    start = time.perf_counter()
    run = step
    if variant == "graphs":
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                step()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            step()
        run = graph.replay
    for _ in range(2):
        run()
    if cuda:
        torch.cuda.synchronize()
    row["prepare_s"] = round(time.perf_counter() - start, 2)
    if args.when:
        print(READY, flush=True)
        if not sys.stdin.readline():
            sys.exit("no longer wanted")
    row.update(measure(torch, run, mode == "latency"))
    row["images_per_second"] = batch / row["median_ms"] * 1e3
    if cuda:
        row["memory_mib"] = round(torch.cuda.max_memory_allocated() / 2**20)
    return row


def depthwise(rows):
    """The same convolution, forward alone and both gradients, operands from memory: a line a row."""
    import torch

    torch.backends.cudnn.benchmark = True
    cuda = args.device == "cuda"
    flush = torch.empty(2**28 if cuda else 1, dtype=torch.uint8, device=args.device)

    def timed(run):
        for _ in range(3):
            run()
        times, end = [], time.perf_counter() + args.seconds
        while len(times) < 5 or time.perf_counter() < end:
            flush.zero_()
            if cuda:
                begin, done = (torch.cuda.Event(enable_timing=True) for _ in range(2))
                begin.record()
                run()
                done.record()
                torch.cuda.synchronize()
                times.append(begin.elapsed_time(done) / 1e3)
            else:
                start = time.perf_counter()
                run()
                times.append(time.perf_counter() - start)
        return quantiles(times)["median_ms"] * 1e3

    for row in rows:
        n, h, w, c = row["input"]
        kernel, stride = int(row["kernel"]), int(row["stride"])
        kind = torch.bfloat16 if precision == "bf16" else torch.float32
        out = [-(-size // stride) for size in (h, w)]
        total = [max(0, (o - 1) * stride + kernel - size) for o, size in zip(out, (h, w))]
        # SAME with an odd total pads one side more: half of the smaller even total on both, as cuDNN can do.
        padding = [t // 2 for t in total] if stride == 1 else [kernel // 2] * 2
        x = torch.randn(n, c, h, w, device=args.device, dtype=kind).to(memory_format=torch.channels_last)
        k = torch.randn(c, 1, kernel, kernel, device=args.device, dtype=kind)
        conv = lambda: torch.nn.functional.conv2d(x, k, stride=stride, padding=padding, groups=c)
        if row["pass"] == "forward":
            with torch.no_grad():
                median = timed(conv)
        else:
            dy = torch.randn_like(conv())
            both = lambda: torch.ops.aten.convolution_backward(
                dy, x, k, None, [stride] * 2, padding, [1, 1], False, [0, 0], c, [True, True, False])
            median = timed(both)
        yield {"network": row["network"], "case": row["case"], "pass": row["pass"], "cudnn_us": median}


def emit(row):
    line = json.dumps(row)
    if args.out:
        with open(args.out, "a") as file:
            file.write(line + "\n")
    else:
        print(line, flush=True)


if args.depthwise:
    with open(args.depthwise) as file:
        found = [json.loads(line) for line in file if line.startswith("{")]
    for result in depthwise([r for r in found if r.get("op") == "depthwise_conv2d" and "kernel" in r]):
        emit(result)
    sys.exit()

if args.one:
    print("\n" + json.dumps(one(*args.one.rsplit(":", 1))))
    sys.exit()

processes = []  # of what is being prepared or measured


def stop(process):
    # The compiler starts processes of its own: all of them end with their group.
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def leave(number, frame):
    """Ended from outside: what is being measured must not go on beside whatever is measured next."""
    for process in processes:
        stop(process)
    sys.exit(128 + number)


for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, leave)


def start(case, variant):
    command = [sys.executable, os.path.abspath(__file__), "--one", f"{case}:{variant}", "--device", args.device,
               "--precision", precision, "--seconds", str(args.seconds)]
    command += ["--library", args.library] if args.library else []
    command += ["--when", args.when] if args.when else []
    out, err = tempfile.TemporaryFile("w+"), tempfile.TemporaryFile("w+")
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=out, stderr=err, text=True,
                               start_new_session=True)
    process.out, process.err = out, err
    processes.append(process)
    return process


def printed(file):
    # The process writes where its descriptor, which is this one too, stands: it must not be moved.
    return os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0).decode(errors="replace")


def finish(process, row, limit):
    """The row that a process prints within `limit` seconds, else `row` with the reason."""
    if limit < 0:
        stop(process)
        return {**row, "skipped": "not prepared in time"}
    try:
        process.wait(timeout=limit)
    except subprocess.TimeoutExpired:
        stop(process)
        return {**row, "skipped": f"not done after {limit:.0f} s"}
    lines = [line for line in printed(process.out).splitlines() if line.startswith("{")]
    if process.returncode == 0 and lines:
        return json.loads(lines[-1])
    return {**row, "failed": (printed(process.err).strip().splitlines() or ["no output"])[-1][:300]}


begin = time.monotonic()
left = lambda: args.total - (time.monotonic() - begin)
cases = args.case or CASES
pairs = [tuple(case.rsplit(":", 1)) for case in cases if case.count(":") == 4]
pairs += [(case, variant) for variant in args.variants.split(",") for case in cases if case.count(":") != 4]
wanted = []
for case, variant in pairs:
    if variant not in VARIANTS:
        sys.exit(f"torch_bench.py: unknown variant {variant}; there are {', '.join(VARIANTS)}")
    model, size, batch, mode = case.rsplit(":", 3)
    wanted.append((case, variant, {"peer": "pytorch", "model": os.path.basename(model)[:-5], "size": int(size),
                                   "batch": int(batch), "mode": mode, "variant": variant, "precision": precision}))
if not args.when:
    for case, variant, row in wanted:
        limit = min(args.limit, left())
        emit({**row, "skipped": "no time left"} if limit < 5 else finish(start(case, variant), row, limit))
    sys.exit()

started = [(start(case, variant), row) for case, variant, row in wanted]
ready = lambda process: process.poll() is not None or READY in printed(process.out)
wanted_at = None  # when FILE was there
while left() > 0:
    prepared = all(ready(process) for process, _ in started)
    if prepared and not os.path.exists(args.when + ".prepared"):
        open(args.when + ".prepared", "w").close()
    if not wanted_at and os.path.exists(args.when):
        wanted_at = time.monotonic()
    # Whoever still compiles would disturb the others.
    if wanted_at and (prepared or time.monotonic() > wanted_at + args.limit):
        break
    time.sleep(0.2)
late = {process for process, _ in started if not ready(process)}
for process in late:
    stop(process)
for process, row in started:
    if process.poll() is None:
        process.stdin.write("go\n")
        process.stdin.flush()
    emit(finish(process, row, -1 if process in late else left()))
