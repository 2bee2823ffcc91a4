// gm_model CONFIG.yaml: the network as a table, with exact counts; gm_model import, export: weights of other
// frameworks.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <iostream>
#include <nlohmann/json.hpp>

#include "engine/plan.h"
#include "kernels/common/backends.h"
#include "layers/count.h"
#include "layers/network.h"
#include "layers/rewrites.h"
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

double training_mib(const Architecture& a, int64_t batch, int size, bool bf16) {
  ParameterTable table;
  const TrainableGraph g = fuse_for_training(build_network(
      a, table,
      {.batch = batch, .input_size = size, .training = true, .dtype = bf16 ? DType::bf16 : DType::f32}));
  const Plan plan = make_plan(g.graph, {.training = true, .loss = g.loss});
  return static_cast<double>(plan.arena_bytes + plan.workspace_bytes) / (1 << 20);
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{
      "Prints a network: layers, parameters, multiply-accumulates (MACs), the second paper's Eq. 13 FLOPs "
      "and activation memory."};
  std::string config;
  std::vector<std::string> sets;
  int size = 0, classes = 0;
  int64_t batch = 64;
  bool as_json = false;
  app.add_option("config", config, "model YAML, run folder or weight file");
  app.add_option("--res", size, "input size in px instead of the model's own")->check(CLI::Range(8, 4096));
  app.add_option("--classes", classes, "number of classes instead of the model's own")
      ->check(CLI::Range(2, 100000));
  app.add_option("--batch", batch, "batch size for the memory estimate")->check(CLI::PositiveNumber);
  app.add_option("--set", sets, "override one key, e.g. --set model.se=0.25")->check(check_assignment);
  app.add_flag("--json", as_json, "print JSON");
  const auto weights = declare_weight_commands(app);
  return gm::run_tool(app, argc, argv, [&] {
    if (weights()) return;
    if (config.empty()) throw CLI::RequiredError("config");
    const bool yaml = config.ends_with(".yaml") || config.ends_with(".yml");
    Architecture a =
        yaml ? read_architecture(load_config(config, sets), config) : read_model(config).architecture;
    if (size) a.input_size = size;
    if (classes && classes != a.classes) {
      a.classes = classes;
      a.class_names.clear();
    }
    install_cpu_kernels();
    ParameterTable table;
    const TrainableGraph net = build_network(a, table, {.batch = 1, .loss = false});
    const NetworkCount count = count_network(net.graph);
    if (as_json) {
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
      std::cout << j.dump(2) << "\n";
      return;
    }
    fmt::print("{}  input {}x{}x3, {} classes\n\n", a.name, a.input_size, a.input_size, a.classes);
    fmt::print("{:<28} {:<17} {:>15} {:>12} {:>12}\n", "layer", "op", "output", "parameters", "MACs");
    for (const auto& l : count.layers)
      fmt::print("{:<28} {:<17} {:>15} {:>12} {:>12}\n", l.name, l.op, l.output.str(),
                 l.params ? fmt::format("{}", l.params) : "", l.macs ? si(static_cast<double>(l.macs)) : "");
    fmt::print("\nparameters   {} total, {} trainable\n", count.params_total, count.params_trainable);
    fmt::print("MACs         {} ({})\n", count.macs, si(static_cast<double>(count.macs)));
    fmt::print("FLOPs eq. 13 {} ({})\n", count.flops_eq13, si(static_cast<double>(count.flops_eq13)));
    fmt::print("activations  {:.0f} MiB in f32, {:.0f} MiB in bf16 for training at batch {}\n",
               training_mib(a, batch, a.input_size, false), training_mib(a, batch, a.input_size, true),
               batch);
  });
}
