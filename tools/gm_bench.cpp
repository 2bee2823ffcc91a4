// gm_bench: times every op at the networks' real shapes, or whole networks, on one device.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "engine/benchmark.h"
#include "tools/cli.h"
#include "tools/host_bench.h"
#include "tools/model_file.h"
#include "tools/network_bench.h"

namespace {

using namespace gm;

struct Arguments {
  std::string op, model, roofline, device = "auto", precision = "f32", mode = "train";
  std::vector<std::string> sets, without, ops;
  int64_t batch = 64;
  int threads = 0, from_host = 0;
  double seconds = 0.3;
  bool recompute = false, nondeterministic = false, every_block = false, json = false, list = false,
       quiet = false;
};

// To find out which fusion a slowdown or a difference comes from.
Fusions fusions_of(const Arguments& a) {
  Fusions f{.every_block = a.every_block};
  for (const std::string& name : a.without) {
    if (name == "all") return Fusions::none();
    (name == "batch_norm"   ? f.batch_norm
     : name == "activation" ? f.activation
     : name == "pool"       ? f.pool
     : name == "residual"   ? f.residual
     : name == "block"      ? f.block
     : name == "gate"       ? f.gate
                            : f.attention) = false;
  }
  return f;
}

Ceilings print_ceilings(Device& device, const Arguments& a) {
  const Ceilings c = measure_ceilings(device, a.seconds);
  if (a.json)
    fmt::print("{}\n", nlohmann::json{{"device", device.description()},
                                      {"copy_gb_s", c.copy / 1e9},
                                      {"matrix_f32_tflop_s", c.matrix_f32 / 1e12},
                                      {"matrix_bf16_tflop_s", c.matrix_bf16 / 1e12},
                                      {"smallest_us", c.smallest * 1e6}}
                           .dump());
  else
    fmt::print(
        "{}; measured ceilings: copy {:.1f} GB/s, matrix product {:.2f} (f32) and {:.2f} (bf16) TFLOP/s\n"
        "{:<20} {:<9} {:>5} {:>9} {:>8} {:>8} {:>7} {:>7}  case\n",
        device.description(), c.copy / 1e9, c.matrix_f32 / 1e12, c.matrix_bf16 / 1e12, "op", "pass", "times",
        "median us", "GB/s", "TFLOP/s", "of copy", "of roof");
  return c;
}

void print_case(const Arguments& a, const Ceilings& ceilings, const TimedCase& t,
                const std::string& network) {
  const Timing& m = t.timing;
  const char* pass = t.pass == Pass::forward ? "forward" : "backward";
  const double gb = m.cost.bytes / m.median / 1e9, tflop = m.cost.flops / m.median / 1e12;
  if (!a.json) {
    fmt::print("{:<20} {:<9} {:>5} {:>9.1f} {:>8.1f} {:>8.3f} {:>6.0f}% {:>6.0f}%  {}\n", t.what.op->name,
               pass, t.what.layers.size(), m.median * 1e6, gb, tflop, 100 * gb * 1e9 / ceilings.copy,
               100 * t.share(), case_text(*t.what.op, t.what.c));
    return;
  }
  nlohmann::json row{{"op", t.what.op->name},
                     {"pass", pass},
                     {"case", case_text(*t.what.op, t.what.c)},
                     {"count", t.what.layers.size()},
                     {"median_us", m.median * 1e6},
                     {"p5_us", m.p5 * 1e6},
                     {"p95_us", m.p95 * 1e6},
                     {"gb_s", gb},
                     {"tflop_s", tflop},
                     {"share_of_copy", gb * 1e9 / ceilings.copy},
                     {"share_of_roof", t.share()},
                     {"memory_bound", t.memory_bound}};
  if (!network.empty()) {
    row["network"] = network;
    row["mode"] = a.mode;
    row["batch"] = a.batch;
    row["layer"] = t.what.layers.front();
    const Shape& x = t.what.c.in[0].spec.shape;
    row["input"] = std::vector<int64_t>(x.dims.begin(), x.dims.begin() + x.rank);
    for (const char* key : {"kernel", "stride"})
      if (t.what.c.attrs.has(key)) row[key] = t.what.c.attrs.get(key, 0);
  }
  fmt::print("{}\n", row.dump());
}

// The cases an op lists for itself, at real shapes.
void bench_listed(Device& device, const Arguments& a) {
  const Ceilings ceilings = print_ceilings(device, a);
  ColdTimer timer(device, a.seconds);
  for (const OpDef* op : all_ops()) {
    if (!a.op.empty() && op->name != a.op) continue;
    for (const OpCase& c : op->cases()) {
      if (!c.large) continue;
      OpRun run(device, *op, c);
      for (Pass pass : {Pass::forward, Pass::backward}) {
        if (pass == Pass::backward && op->differentiable.empty()) continue;
        const Timing timing = time_op(timer, *op, run, c, pass);
        print_case(a, ceilings, {{op, c, {""}}, pass, timing, ceilings, c.in[0].spec.dtype}, "");
      }
    }
  }
}

ModelBenchOptions options_of(const Arguments& a) {
  return {.batch = a.batch,
          .training = a.mode == "train",
          .precision = a.precision,
          .recompute = a.recompute,
          .seconds = a.seconds,
          .fusions = fusions_of(a)};
}

// The ops of whole networks.
void bench_networks(Device& device, const Arguments& a) {
  std::vector<Architecture> networks;
  for (const std::string& file : a.ops)
    networks.push_back(read_architecture(load_config(file, a.sets), file));
  const Ceilings ceilings = print_ceilings(device, a);
  for (const Architecture& net : networks)
    for (const TimedCase& t : time_network_ops(device, net, options_of(a), ceilings, a.op))
      print_case(a, ceilings, t, net.name);
}

void bench_roofline(Device& device, const Arguments& a) {
  const Architecture net = read_architecture(load_config(a.roofline, a.sets), a.roofline);
  const ModelBenchOptions options = options_of(a);
  const Ceilings ceilings = measure_ceilings(device, a.seconds);
  const std::vector<TimedCase> ops = time_network_ops(device, net, options, ceilings);
  fmt::print("{}", roofline_page(device.description(), net, options, ceilings, ops,
                                 time_model(device, net, options).step));
}

void bench_model(Device& device, const Arguments& a) {
  const Architecture net = read_architecture(load_config(a.model, a.sets), a.model);
  ModelBenchOptions options = options_of(a);
  options.seconds = std::max(1.0, a.seconds);
  const ModelTiming t = time_model(device, net, options);
  if (a.json)
    fmt::print("{}\n", nlohmann::json{{"device", device.description()},
                                      {"model", net.name},
                                      {"input", net.input_size},
                                      {"batch", t.batch},
                                      {"mode", a.mode},
                                      {"precision", a.precision},
                                      {"recompute", a.recompute},
                                      {"median_ms", t.step.median * 1e3},
                                      {"p5_ms", t.step.p5 * 1e3},
                                      {"p95_ms", t.step.p95 * 1e3},
                                      {"images_per_second", static_cast<double>(t.batch) / t.step.median},
                                      {"memory_mib", static_cast<double>(t.bytes) / (1 << 20)}}
                           .dump());
  else
    fmt::print(
        "{}\n"
        "{} {} at {} px, batch {}, {}: {:.2f} ms a step (p5 {:.2f}, p95 {:.2f}), {:.0f} img/s, {:.0f} MiB\n",
        device.description(), net.name, a.mode, net.input_size, t.batch, a.precision, t.step.median * 1e3,
        t.step.p5 * 1e3, t.step.p95 * 1e3, static_cast<double>(t.batch) / t.step.median,
        static_cast<double>(t.bytes) / (1 << 20));
  if (a.quiet || a.json) return;
  fmt::print("\n{:<28} {:>9} {:>7}\n", "op, pass", "ms", "share");
  double total = 0;
  for (const auto& [name, seconds] : t.by_op) total += seconds;
  for (const auto& [name, seconds] : t.by_op)
    fmt::print("{:<28} {:>9.3f} {:>6.1f}%\n", name, seconds * 1e3, 100 * seconds / total);
}

void bench_from_host(Device& device, const Arguments& a) {
  const Architecture net = read_architecture(load_config(a.model, a.sets), a.model);
  ModelBenchOptions options = options_of(a);
  options.seconds = std::max(1.0, a.seconds);
  const HostBench t = time_from_host(device, net, options, a.from_host);
  if (a.json)
    fmt::print("{}\n", nlohmann::json{{"device", device.description()},
                                      {"model", net.name},
                                      {"input", net.input_size},
                                      {"image", a.from_host},
                                      {"batch", options.batch},
                                      {"mode", "from_host"},
                                      {"precision", a.precision},
                                      {"images_per_second", t.images_per_second},
                                      {"gb_s", t.bytes_per_second / 1e9},
                                      {"upload_gb_s", t.upload_per_second / 1e9},
                                      {"share_of_upload", t.share()},
                                      {"captured", t.captured}}
                           .dump());
  else
    fmt::print(
        "{}\n{}: images of {} px in the host's memory, batch {}, {}: {:.0f} img/s, {:.2f} GB/s, {:.0f} % of "
        "the {:.2f} GB/s of uploads alone\n",
        device.description(), net.name, a.from_host, options.batch, a.precision, t.images_per_second,
        t.bytes_per_second / 1e9, 100 * t.share(), t.upload_per_second / 1e9);
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{
      "Times ops at real shapes (default), every op of networks (--ops), a whole network (--model), or a "
      "network block by block against the device's ceilings (--roofline). After a warm-up: median, 5th and "
      "95th percentile, bytes and FLOPs from each op's cost, shares of the measured copy bandwidth and of "
      "the roof."};
  Arguments a;
  app.add_option("--op", a.op, "one op only")->check([](const std::string& name) {
    const auto ops = all_ops();
    const bool known = std::any_of(ops.begin(), ops.end(), [&](const OpDef* op) { return op->name == name; });
    return known ? std::string() : "unknown op '" + name + "'; --list names all";
  });
  app.add_flag("--list", a.list, "list the ops");
  auto* model = app.add_option("--model", a.model, "time a network: model YAML");
  auto* ops =
      app.add_option("--ops", a.ops, "time every op of a network at its shapes: model YAML")->excludes(model);
  app.add_option("--roofline", a.roofline, "a page in Markdown for a network: model YAML")
      ->excludes(model)
      ->excludes(ops);
  app.add_option("--mode", a.mode, "of a network: train or infer")->check(CLI::IsMember({"train", "infer"}));
  app.add_option("--batch", a.batch, "of a network: batch size")
      ->capture_default_str()
      ->check(CLI::Range(1, 65536));
  app.add_option("--precision", a.precision, "f32, tf32 (of a card's products) or, of a network, bf16")
      ->check(CLI::IsMember({"f32", "tf32", "bf16"}));
  app.add_option(
         "--from-host", a.from_host,
         "with --model: classify 8-bit images of so many px a side from the host's memory, beside the "
         "rate of uploads")
      ->needs(model)
      ->check(CLI::Range(8, 16384));
  app.add_flag("--recompute", a.recompute, "with --model: train as with train.recompute");
  app.add_flag(
      "--nondeterministic", a.nondeterministic,
      "library kernels of a card whose sums depend on timing too, as with train.deterministic false");
  add_sets(app, a.sets, "of a network: override one key, e.g. input.size=64");
  app.add_option("--without", a.without,
                 "of a network: leave out a fusion: batch_norm (or its folding), activation, pool, residual, "
                 "attention, block, gate, all")
      ->check(CLI::IsMember(
          {"batch_norm", "activation", "pool", "residual", "attention", "block", "gate", "all"}));
  app.add_flag("--every-block", a.every_block,
               "of a network on a card: whole MBConv blocks also where they are not expected to pay");
  app.add_option("--seconds", a.seconds, "time spent on each figure")
      ->capture_default_str()
      ->check(check_not_negative);
  add_device(app, a.device, a.threads);
  app.add_flag("--json", a.json, "one JSON object a line");
  app.add_flag("--quiet", a.quiet, "figures only");
  return gm::run_tool(app, argc, argv, [&] {
    if (a.list) {
      for (const OpDef* op : all_ops()) fmt::print("{:<20} {}\n", op->name, op->summary);
      return;
    }
    auto device = open_device(
        a.device,
        {.threads = a.threads, .deterministic = !a.nondeterministic, .tf32 = a.precision == "tf32"});
    if (a.from_host) return bench_from_host(*device, a);
    if (!a.model.empty()) return bench_model(*device, a);
    if (!a.ops.empty()) return bench_networks(*device, a);
    a.roofline.empty() ? bench_listed(*device, a) : bench_roofline(*device, a);
  });
}
