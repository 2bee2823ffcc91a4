#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>

#include "engine/atomic_file.h"
#include "kernels/common/backends.h"
#include "kernels/common/error.h"
#include "tools/cli.h"
#include "tools/search/commands.h"
#include "tools/search/config.h"

namespace gm {

namespace {

struct Arguments {
  std::string config, choices, out;
  std::vector<std::string> sets;
};

void write_child(const Arguments& a) {
  keep_inputs(a.out, {a.config});
  const SearchConfig config = read_search_config(load_config(a.config, a.sets), a.config);
  const SearchSpace space(config.run.architecture, config.space);
  ChoiceVector choices;
  if (!a.choices.empty()) {
    choices = parse_choices(a.choices);
  } else if (const auto base = space.choices_of(space.base())) {
    choices = *base;
  } else {
    fail(a.config + ": the base network is not in its own space; give --choices");
  }
  const Architecture network = space.network(choices);
  install_cpu_kernels();
  const NetworkSize size = network_size(network);
  const std::string name = a.choices.empty() ? network.name : network.name + "-child";
  const std::string text =
      network_config(config.training, network, name,
                     fmt::format("choices {}: {}; {} parameters, {} MACs", choices_text(choices),
                                 SearchSpace::text(network), size.parameters, size.macs));
  if (a.out.empty())
    fmt::print("{}", text);
  else
    write_file_atomic(a.out, text);
}

}  // namespace

std::function<bool()> declare_search_child(CLI::App& app) {
  auto a = std::make_shared<Arguments>();
  CLI::App* child =
      app.add_subcommand("child", "write one network of the space as a configuration for gm_train");
  child->add_option("config", a->config, "base network, recipe and space (YAML)")->required();
  child->add_option(
      "--choices", a->choices,
      "its choices as in journal.jsonl, e.g. 0,0,1,0,0,0,... (default: those of the base network)");
  child->add_option("--out", a->out, "file to write (default: standard output)");
  add_sets(*child, a->sets, "override one key, e.g. --set input.size=64");
  return [a, child] {
    if (child->parsed()) write_child(*a);
    return child->parsed();
  };
}

}  // namespace gm
