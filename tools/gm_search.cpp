// gm_search: finds networks.
#include <CLI/CLI.hpp>

#include "tools/cli.h"
#include "tools/search/commands.h"

int main(int argc, char** argv) {
  CLI::App app{"Searches for networks and scales them."};
  app.require_subcommand(1);
  const std::function<bool()> commands[]{gm::declare_search_run(app), gm::declare_search_finalists(app),
                                         gm::declare_search_child(app), gm::declare_search_scale(app),
                                         gm::declare_search_resolution(app)};
  return gm::run_tool(app, argc, argv, [&] {
    for (const auto& run : commands)
      if (run()) return;
  });
}
