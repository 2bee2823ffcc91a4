#include "tools/network_bench.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "layers/network.h"

namespace gm {

namespace {

// Dense rates of the data sheets: bytes a second, FLOPs a second (bf16 with f32 sums).
struct DataSheet {
  const char* name;
  double copy, f32, bf16;
  double bound(const Cost& c, bool half) const {
    return std::max(c.bytes / copy, c.flops / (half ? bf16 : f32));
  }
};
constexpr DataSheet kCards[]{{"A100 80 GB SXM", 2039e9, 19.5e12, 312e12},
                             {"RTX 3090", 936e9, 35.6e12, 71e12}};

Graph ops_of(const Architecture& a, const ModelBenchOptions& o, Backend backend, ParameterTable& table,
             std::unique_ptr<FoldedNetwork>& folded) {
  const NetworkGraph plain = build_network(a, table,
                                           {.batch = o.batch,
                                            .training = o.training,
                                            .dtype = o.bf16() ? DType::bf16 : DType::f32,
                                            .loss = o.training});
  if (o.training) return fuse_for_training(plain, o.fusions, backend).graph;
  folded = std::make_unique<FoldedNetwork>(plain, o.fusions, backend);
  return folded->net.graph;
}

// "block2a" of "block2a_expand_conv".
std::string block_of(const std::string& layer) { return layer.substr(0, layer.find('_')); }

struct Row {
  std::string name;
  Cost cost;
  double bound = 0, taken = 0, cards[std::size(kCards)]{};

  void add(const TimedCase& t, bool half) {
    cost.bytes += t.timing.cost.bytes;
    cost.flops += t.timing.cost.flops;
    bound += t.bound;
    taken += t.timing.median;
    for (size_t i = 0; i < std::size(kCards); ++i)
      cards[i] += kCards[i].bound(t.timing.cost, half) / std::max(t.share(), 1e-9);
  }
  std::string line() const {
    std::string s =
        fmt::format("| {} | {:.3f} | {:.3f} | {:.3f} | {:.3f} | {:.0f} % |", name, cost.bytes / 1e9,
                    cost.flops / 1e9, bound * 1e3, taken * 1e3, 100 * bound / taken);
    for (double seconds : cards) s += fmt::format(" {:.3f} |", seconds * 1e3);
    return s + "\n";
  }
};

}  // namespace

TimedCase::TimedCase(NetworkCase what_, Pass pass_, const Timing& timing_, const Ceilings& ceilings,
                     DType dtype)
    : what(std::move(what_)), pass(pass_), timing(timing_) {
  bound = ceilings.bound(timing.cost, dtype);
  memory_bound = timing.cost.bytes / ceilings.copy >= timing.cost.flops / ceilings.matrix(dtype);
}

std::vector<TimedCase> time_network_ops(Device& device, const Architecture& a,
                                        const ModelBenchOptions& options, const Ceilings& ceilings,
                                        const std::string& op) {
  ParameterTable table;
  std::unique_ptr<FoldedNetwork> folded;
  const Graph graph = ops_of(a, options, device.backend(), table, folded);
  const DType dtype = options.bf16() ? DType::bf16 : DType::f32;
  ColdTimer timer(device, options.seconds);
  std::vector<TimedCase> timed;
  for (const NetworkCase& c : network_cases(graph)) {
    if (!op.empty() && c.op->name != op) continue;
    OpRun run(device, *c.op, c.c);
    for (Pass pass : {Pass::forward, Pass::backward}) {
      if (pass == Pass::backward && (!options.training || c.op->differentiable.empty())) continue;
      timed.emplace_back(c, pass, time_op(timer, *c.op, run, c.c, pass), ceilings, dtype);
    }
  }
  return timed;
}

std::string roofline_page(const std::string& device, const Architecture& a, const ModelBenchOptions& options,
                          const Ceilings& ceilings, const std::vector<TimedCase>& ops, const Timing& step) {
  std::vector<std::string> order;
  std::map<std::string, Row> blocks;
  Row all{"all ops"};
  for (const TimedCase& t : ops)
    for (const std::string& layer : t.what.layers) {
      const auto [it, added] = blocks.try_emplace(block_of(layer), Row{block_of(layer)});
      if (added) order.push_back(it->first);
      it->second.add(t, options.bf16());
      all.add(t, options.bf16());
    }
  std::sort(order.begin(), order.end());
  std::string page = fmt::format(
      "# Roofline: {}, {} px, batch {}, {}, {}\n\n{}. Measured ceilings: copy {:.1f} GB/s, matrix product "
      "f32 {:.2f} and bf16 {:.2f} TFLOP/s; the smallest kernel takes {:.1f} us.\n\n",
      a.name, a.input_size, options.batch, options.precision, options.training ? "training" : "inference",
      device, ceilings.copy / 1e9, ceilings.matrix_f32 / 1e12, ceilings.matrix_bf16 / 1e12,
      ceilings.smallest * 1e6);
  page += "| block | GB | GFLOP | ms at the ceilings | ms taken | share |";
  for (const DataSheet& card : kCards) page += fmt::format(" {}, ms |", card.name);
  page += "\n|---|---|---|---|---|---|";
  for (size_t i = 0; i < std::size(kCards); ++i) page += "---|";
  page += "\n";
  for (const std::string& name : order) page += blocks.at(name).line();
  page += all.line();
  page += fmt::format(
      "\nEach op alone, operands from memory. The whole {} takes {:.3f} ms ({:.0f} img/s){}. Columns of "
      "other cards are\n"
      "predictions: each op's time at that card's data-sheet rates divided by the share of the ceilings "
      "reached here.\n",
      options.training ? "training step" : "batch", step.median * 1e3,
      static_cast<double>(options.batch) / step.median, options.training ? ", optimizer included" : "");
  return page;
}

}  // namespace gm
