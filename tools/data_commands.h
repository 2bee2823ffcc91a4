// The larger subcommands of gm_data. Each function declares one; its result runs the subcommand if it was the
// one asked for, and says whether it was.
#pragma once
#include <functional>

namespace CLI {
class App;
}

namespace gm {

/// gm_data fetch: downloads a public set, or says how to get one that needs a user's consent.
std::function<bool()> declare_data_fetch(CLI::App& app);
/// gm_data clean: the counts of S2's Table 1 for a label file beside the paper's and, with --out, a catalog
/// (id_str, file_loc, label, class) of the galaxies whose <id>.jpg is in --images.
std::function<bool()> declare_data_clean(CLI::App& app);
/// gm_data preview: a PNG sheet of a galaxy a row, as it is, as validation sees it, and as training does (S1
/// Fig. 4, S2 Fig. 2).
std::function<bool()> declare_data_preview(CLI::App& app);

}  // namespace gm
