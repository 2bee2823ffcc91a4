// gm_compare EVAL... --out DIR: evaluated networks side by side, as tables and figures.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <filesystem>

#include "engine/atomic_file.h"
#include "kernels/common/error.h"
#include "tools/cli.h"
#include "tools/comparison.h"

namespace {

using namespace gm;
namespace fs = std::filesystem;

void compare(const std::vector<std::string>& inputs, const std::string& out, bool quiet) {
  std::vector<ComparedNetwork> networks;
  for (const std::string& path : inputs) networks.push_back(read_evaluation(path));
  tell_apart(networks);
  const std::string note = different_data(networks);
  if (!quiet && !note.empty()) say(fmt::format("note: {}", note));
  for (const ComparedNetwork& n : networks)
    if (!quiet && !n.record)
      say(fmt::format("note: {} has no metrics.csv beside its weights, so no curve", n.name));
  fmt::print("{}", comparison_markdown(networks));
  if (out.empty()) return;
  make_folder(out);
  auto file = [&](const char* name) { return (fs::path(out) / name).string(); };
  write_file_atomic(file("comparison.csv"), comparison_csv(networks));
  write_file_atomic(file("accuracy_by_epoch.svg"), chart_svg(epochs_chart(networks)));
  write_file_atomic(file("accuracy_by_macs.svg"), chart_svg(macs_chart(networks)));
  write_file_atomic(file("accuracy_by_parameters.svg"), chart_svg(parameters_chart(networks)));
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{
      "Compares evaluated networks: a table on standard output and, with --out, comparison.csv and charts of "
      "accuracy by epoch, MACs and parameters."};
  std::vector<std::string> inputs;
  std::string out;
  bool quiet = false;
  app.add_option("evaluations", inputs, "folders that gm_eval --out wrote, or their metrics.json")
      ->required();
  app.add_option("--out", out, "folder for comparison.csv and the charts");
  app.add_flag("--quiet", quiet, "print the table and errors only");
  return gm::run_tool(app, argc, argv, [&] { compare(inputs, out, quiet); });
}
