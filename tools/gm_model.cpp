// gm_model CONFIG.yaml: the network as a table, with exact counts; gm_model import, export: weights of other
// frameworks.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "engine/budget.h"
#include "kernels/common/parallel.h"
#include "layers/count.h"
#include "layers/network.h"
#include "layers/rewrites.h"
#include "layers/v2_family.h"
#include "tools/cli.h"
#include "tools/model_file.h"
#include "tools/model_weights.h"

namespace {

using namespace gm;

std::string si(double v) {
  for (auto [unit, name] : {std::pair{1e9, " G"}, {1e6, " M"}, {1e3, " k"}})
    if (v >= unit) return fmt::format("{:.3f}{}", v / unit, name);
  return fmt::format("{:.0f}", v);
}

void print_json(const Architecture& a, const NetworkCount& count) {
  nlohmann::ordered_json j;
  j["name"] = a.name;
  j["params_total"] = count.params_total;
  j["params_trainable"] = count.params_trainable;
  j["macs"] = count.macs;
  j["flops_eq13"] = count.flops_eq13;
  j["input"] = a.input_size;
  j["classes"] = a.classes;
  j["layers"] = nlohmann::ordered_json::array();
  for (const auto& l : count.layers) {
    std::vector<int64_t> out(l.output.dims.begin(), l.output.dims.begin() + l.output.rank);
    j["layers"].push_back({{"name", l.name},
                           {"op", l.op},
                           {"output", out},
                           {"params", l.params},
                           {"macs", l.macs},
                           {"flops_eq13", l.flops_eq13}});
  }
  fmt::print("{}\n", j.dump(2));
}

void print_tables(const Architecture& a, const NetworkCount& count) {
  fmt::print("{}  input {}x{}x3, {} classes\n\n", a.name, a.input_size, a.input_size, a.classes);
  fmt::print("{:<28} {:<17} {:>15} {:>12} {:>12}\n", "layer", "op", "output", "parameters", "MACs");
  for (const auto& l : count.layers)
    fmt::print("{:<28} {:<17} {:>15} {:>12} {:>12}\n", l.name, l.op, l.output.str(),
               l.params ? fmt::format("{}", l.params) : "", l.macs ? si(static_cast<double>(l.macs)) : "");
  fmt::print("\n{:<7} {:<24} {:>11} {:>9} {:>7}\n", "stage", "operator", "resolution", "channels", "layers");
  int stage = 0;
  for (const StageRow& r : stage_rows(a))
    fmt::print("{:<7} {:<24} {:>11} {:>9} {:>7}\n", ++stage, r.op, fmt::format("{0} x {0}", r.resolution),
               r.channels, r.layers);
  fmt::print("\nparameters   {} total, {} trainable\n", count.params_total, count.params_trainable);
  fmt::print("MACs         {} ({})\n", count.macs, si(static_cast<double>(count.macs)));
  fmt::print("FLOPs eq. 13 {} ({})\n", count.flops_eq13, si(static_cast<double>(count.flops_eq13)));
  if (const std::string member = v2_member_of(a); !member.empty())
    fmt::print("backbone     that of {}\n", member);
}

// What a training run takes, by kind, in both precisions with and without train.recompute.
void print_memory(const Architecture& a, int64_t batch) {
  std::vector<MemoryBudget> columns;
  for (bool mixed : {false, true})
    for (bool recompute : {false, true}) {
      ParameterTable table;
      BuildOptions build{.batch = batch, .training = true, .dtype = mixed ? DType::bf16 : DType::f32};
      const NetworkGraph train = fuse_for_training(build_network(a, table, build));
      build.training = false;
      const FoldedNetwork eval(build_network(a, table, build));
      columns.push_back(
          training_budget(train, eval.net,
                          {.bf16_copies = mixed, .recompute = recompute, .threads = available_processors()}));
    }
  fmt::print("\nmemory for training at batch {} on the CPU with AdamW, MiB\n", batch);
  fmt::print("{:<24} {:>10} {:>14} {:>10} {:>15}\n", "", "f32", "f32, recompute", "bf16", "bf16, recompute");
  auto line = [&](const std::string& name, auto&& bytes) {
    fmt::print("{:<24} {:>10} {:>14} {:>10} {:>15}\n", name, mib_text(bytes(columns[0])),
               mib_text(bytes(columns[1])), mib_text(bytes(columns[2])), mib_text(bytes(columns[3])));
  };
  for (const MemoryBudget::Row& row : columns[0].rows())
    line(row.name, [&](const MemoryBudget& b) { return b.bytes(row.name); });
  line("total", [](const MemoryBudget& b) { return b.total(); });
  fmt::print("gm_train adds the program, decoded images (data.cache_mib) and batches in flight.\n");
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{
      "Prints a network: layers, parameters, multiply-accumulates (MACs), the second paper's Eq. 13 FLOPs "
      "and the memory of training."};
  std::string config;
  std::vector<std::string> sets;
  int size = 0, classes = 0;
  int64_t batch = 64;
  bool as_json = false;
  app.add_option("config", config, "model YAML, run folder or weight file");
  app.add_option("--res", size, "input size in px instead of the model's own")->check(CLI::Range(8, 4096));
  app.add_option("--classes", classes, "number of classes instead of the model's own")
      ->check(CLI::Range(2, 10000));
  app.add_option("--batch", batch, "batch size for the memory estimate")->check(CLI::Range(1, 1 << 20));
  add_sets(app, sets, "override one key, e.g. --set model.se=0.25");
  app.add_flag("--json", as_json, "print JSON");
  const auto weights = declare_weight_commands(app);
  return gm::run_tool(app, argc, argv, [&] {
    if (weights()) return;
    if (config.empty()) throw CLI::RequiredError("config");
    const bool yaml = config.ends_with(".yaml") || config.ends_with(".yml");
    if (!yaml && !sets.empty())
      fail("--set: " + config + " describes a network that is there; a key can be set over a .yaml only");
    Architecture a =
        yaml ? read_architecture(load_config(config, sets), config) : read_model(config).architecture;
    if (size) a.input_size = size;
    if (classes && classes != a.classes) {
      a.classes = classes;
      a.class_names.clear();
    }
    const NetworkCount count = count_network(a);
    if (as_json) return print_json(a, count);
    print_tables(a, count);
    print_memory(a, batch);
  });
}
