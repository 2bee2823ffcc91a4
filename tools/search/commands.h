// The subcommands of gm_search. Each function declares one; its result runs the subcommand if it was the one
// asked for, and says whether it was.
#pragma once
#include <functional>

namespace CLI {
class App;
}

namespace gm {

/// gm_search child: one network of the space as a configuration for gm_train.
std::function<bool()> declare_search_child(CLI::App& app);
/// gm_search run: ENAS with shared weights, random search beside it; the best trained from scratch.
std::function<bool()> declare_search_run(CLI::App& app);
/// gm_search finalists: the last part of run alone.
std::function<bool()> declare_search_finalists(CLI::App& app);
/// gm_search scale: compound scaling (S2 section 2.3).
std::function<bool()> declare_search_scale(CLI::App& app);
/// gm_search resolution: accuracy against input size (S2 Fig. 6).
std::function<bool()> declare_search_resolution(CLI::App& app);

}  // namespace gm
