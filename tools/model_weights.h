// gm_model import and gm_model export.
#pragma once
#include <functional>

namespace CLI {
class App;
}

namespace gm {

/// Declares both subcommands. The result runs the one that was asked for, or returns false when there was
/// none.
std::function<bool()> declare_weight_commands(CLI::App& app);

}  // namespace gm
