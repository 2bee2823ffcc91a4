#include "engine/budget.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <numeric>

#include "engine/trainer.h"

namespace gm {

namespace {

// A figure of /proc/self/status, given there in KiB. Unlike getrusage's, the peak found there does not start
// with that of the process that launched this one.
size_t status_bytes(const std::string& key) {
  std::ifstream file("/proc/self/status");
  for (std::string line; std::getline(file, line);)
    if (line.starts_with(key)) return std::strtoull(line.c_str() + key.size(), nullptr, 10) << 10;
  return 0;
}

// What a CPU thread keeps for itself: an image on its way into a convolution and out of it, and a weight
// gradient, all in f32. The kernels' own sizes differ from this by a few MiB a thread at most.
size_t thread_scratch(const Graph& graph) {
  int64_t image = 0, kernel = 0;
  for (const Value& v : graph.values()) {
    if (v.kind == Value::parameter) kernel = std::max(kernel, v.spec.shape.numel());
    if (v.kind == Value::activation && v.spec.shape.rank == 4)
      image = std::max(image, v.spec.shape.numel() / v.spec.shape[0]);
  }
  return static_cast<size_t>(2 * image + kernel) * sizeof(float);
}

}  // namespace

size_t resident_bytes() { return status_bytes("VmRSS:"); }
size_t peak_resident_bytes() { return status_bytes("VmHWM:"); }

std::string mib_text(size_t bytes) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f", static_cast<double>(bytes) / (1 << 20));
  return text;
}

size_t MemoryBudget::bytes(const std::string& name) const {
  for (const Row& r : rows_)
    if (r.name == name) return r.bytes;
  return 0;
}

size_t MemoryBudget::total() const {
  return std::accumulate(rows_.begin(), rows_.end(), size_t{0},
                         [](size_t sum, const Row& r) { return sum + r.bytes; });
}

std::vector<std::string> MemoryBudget::lines(const std::string& title) const {
  if (rows_.empty()) return {};
  auto line = [](const std::string& name, size_t bytes, const std::string& note) {
    char text[300];
    std::snprintf(text, sizeof text, "  %-24s %9s%s%s", name.c_str(), mib_text(bytes).c_str(),
                  note.empty() ? "" : "  ", note.c_str());
    return std::string(text);
  };
  std::vector<std::string> all{title + " (MiB):"};
  for (const Row& r : rows_) all.push_back(line(r.name, r.bytes, r.note));
  all.push_back(line("total", total(), ""));
  return all;
}

MemoryBudget training_budget(const NetworkGraph& train, const NetworkGraph& eval, const BudgetOptions& o) {
  auto plan_of = [&](const NetworkGraph& g, PlanOptions options) {
    options.backend = o.backend;
    return make_plan(g.graph, options);
  };
  const Plan plan = plan_of(train, training_options(train, o.recompute)),
             other = plan_of(train, training_options(train, !o.recompute)),
             evaluation = plan_of(eval, evaluation_options(eval));
  const ParameterTable &table = train.graph.table(), &eval_table = eval.graph.table();
  const size_t state = table.state_elements() * sizeof(float);
  const bool repeats =
      std::any_of(plan.steps.begin(), plan.steps.end(), [](const Step& s) { return s.again; });
  // Evaluation runs in the memory of training as far as it fits.
  auto beyond = [](size_t wanted, size_t there) { return wanted > there ? wanted : 0; };

  MemoryBudget b;
  b.add("parameters", weight_bytes(table, o.bf16_copies), "running statistics included");
  b.add("gradients", table.trainable_elements() * sizeof(float));
  b.add("optimizer state", optimizer_bytes(o.optimizer, table));
  b.add("training activations", plan.arena_bytes + (repeats ? state : 0),
        mib_text(other.arena_bytes) + (o.recompute ? " without" : " with") + " train.recompute");
  const size_t extra = beyond(evaluation.arena_bytes, plan.arena_bytes);
  b.add("evaluation activations", extra,
        extra ? "" : mib_text(evaluation.arena_bytes) + " in the place of training's");
  b.add("evaluation weights", weight_bytes(eval_table, o.bf16_copies), "batch norm folded");
  b.add("workspace", plan.workspace_bytes + beyond(evaluation.workspace_bytes, plan.workspace_bytes));
  b.add("kernel scratch",
        o.libraries + (o.backend == Backend::cpu ? o.threads * thread_scratch(train.graph) : 0));
  return b;
}

}  // namespace gm
