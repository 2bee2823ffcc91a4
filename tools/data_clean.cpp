#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <filesystem>
#include <memory>

#include "data/clean_samples.h"
#include "data/csv.h"
#include "data/dataset.h"
#include "data/utf8.h"
#include "engine/atomic_file.h"
#include "kernels/common/error.h"
#include "tools/cli.h"
#include "tools/data_commands.h"

namespace fs = std::filesystem;

namespace gm {
namespace {

struct CleanOptions {
  std::string csv, images, out;
  bool conditional = false, quiet = false;
};

void print_counts(const CleanSamples& s) {
  fmt::print("{:<12}  {:>8}  {:>8}\n", "class", "here", "paper");
  int64_t here = 0, paper = 0;
  for (size_t k = 0; k < s.counts.size(); ++k) {
    fmt::print("{:<12}  {:>8}  {:>8}\n", gz5_classes()[k], s.counts[k], kPaperCleanCounts[k]);
    here += s.counts[k];
    paper += kPaperCleanCounts[k];
  }
  fmt::print("{:<12}  {:>8}  {:>8}\n", "all", here, paper);
  fmt::print("{} galaxies in the file; answers add up to their parents within {:.1e}\n", s.rows,
             s.largest_sum_error);
  if (!s.unchecked.empty())
    fmt::print("not checked for lack of columns: question {}\n", fmt::join(s.unchecked, ", "));
  if (s.ambiguous > 0) fmt::print("in more than one class, left out of the catalog: {}\n", s.ambiguous);
}

/// Paths in a catalog are relative to it where that is possible.
std::string beside(const fs::path& file, const fs::path& catalog) {
  std::error_code none;
  const fs::path near = fs::relative(file, fs::absolute(catalog).parent_path(), none);
  return none || near.empty() ? fs::absolute(file).string() : near.string();
}

void clean_samples(const CleanOptions& o) {
  keep_inputs(o.out, {o.csv});
  if (!o.images.empty() && !fs::is_directory(o.images)) fail(o.images + ": is no folder of images");
  const CleanSamples s = select_clean_samples(o.csv, {.conditional = o.conditional});
  if (s.off > 0)
    say(fmt::format("gm_data: warning: {}; {} of {} galaxies are like this, and are taken as they stand",
                    s.first_off, s.off, s.rows));
  if (!o.quiet) print_counts(s);
  if (o.out.empty()) return;
  std::string csv = "id_str,file_loc,label,class\n", first_missing;
  int64_t written = 0, missing = 0;
  for (const CleanGalaxy& g : s.galaxies) {
    const fs::path file = fs::path(o.images) / (g.id + ".jpg");
    if (!fs::exists(file)) {
      if (missing++ == 0) first_missing = file.string();
      continue;
    }
    const std::string loc = beside(file, o.out);
    if (not_utf8(loc) != std::string::npos)
      fail(file.string() + ": this path is not UTF-8 text, as catalogs are; rename its folders");
    csv += fmt::format("{},{},{},{}\n", csv_cell(g.id), csv_cell(loc), g.label, gz5_classes()[g.label]);
    ++written;
  }
  if (written == 0)
    fail(s.galaxies.empty()
             ? o.csv + ": no galaxy fulfils the rules"
             : o.images + ": holds no image of the selected galaxies (" + first_missing + " is missing)");
  write_file_atomic(o.out, csv);
  if (o.quiet) return;
  fmt::print("{}: {} galaxies\n", o.out, written);
  if (missing > 0) fmt::print("without an image, left out: {} (first: {})\n", missing, first_missing);
}

}  // namespace

std::function<bool()> declare_data_clean(CLI::App& app) {
  auto o = std::make_shared<CleanOptions>();
  CLI::App* clean = app.add_subcommand("clean", "select the second paper's five clean classes (its Table 1)");
  clean->add_option("CSV", o->csv, "training_solutions_rev1.csv of the Galaxy Zoo challenge")->required();
  CLI::Option* images = clean->add_option("--images", o->images, "folder that holds <GalaxyID>.jpg");
  clean->add_option("--out", o->out, "catalog to write: FILE.csv; without it, counts only")->needs(images);
  clean->add_flag(
      "--conditional", o->conditional,
      "divide each vote fraction by its parent answer's first (not what the paper's counts mean)");
  clean->add_flag("--quiet", o->quiet, "print errors only");
  return [o, clean] {
    if (clean->parsed()) clean_samples(*o);
    return clean->parsed();
  };
}

}  // namespace gm
