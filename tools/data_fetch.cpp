#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <filesystem>
#include <memory>

#include "data/download.h"
#include "kernels/common/error.h"
#include "tools/cli.h"
#include "tools/data_commands.h"

namespace fs = std::filesystem;

namespace gm {
namespace {

struct FetchOptions {
  std::string name, out = ".";
  std::vector<std::string> mirrors;  // tried before the built-in ones
  bool quiet = false;
};

struct PublicSet {
  std::string name;
  DownloadSource source;     // no URLs: not to be fetched without the user
  std::string instructions;  // then: what to do instead
};

const std::vector<PublicSet>& public_sets() {
  static const std::vector<PublicSet> sets = {
      {"galaxy10",
       {"Galaxy10_DECals.h5",
        "19aefc477c41bb7f77ff07599a6b82a038dc042f889a111b0d4d98bb755c1571",
        {"https://zenodo.org/records/10845026/files/Galaxy10_DECals.h5",
         "https://www.astro.utoronto.ca/~hleung/shared/Galaxy10/Galaxy10_DECals.h5"}},
       ""},
      {"galaxyzoo-labels",
       {"training_solutions_rev1.csv", "", {}},
       "The labels and images of the Galaxy Zoo challenge are handed out to users who accept its rules:\n"
       "  1. sign in at https://www.kaggle.com/c/galaxy-zoo-the-galaxy-challenge/data and accept the rules\n"
       "  2. download and unpack training_solutions_rev1.zip and images_training_rev1.zip\n"
       "  3. gm_data clean training_solutions_rev1.csv --images images_training_rev1 --out clean.csv\n"},
  };
  return sets;
}

std::vector<std::string> fetchable_sets() {
  std::vector<std::string> names;
  for (const PublicSet& s : public_sets()) names.push_back(s.name);
  return names;
}

void fetch_set(const FetchOptions& o) {
  for (const PublicSet& set : public_sets()) {
    if (set.name != o.name) continue;
    if (set.source.urls.empty()) {
      fmt::print("{}", set.instructions);
      fail(o.name + ": cannot be downloaded without your consent; see the steps above");
    }
    if (!can_download()) fail("this build has no libcurl: run tools/setup.sh and build again");
    make_folder(o.out);
    DownloadSource source = set.source;
    source.urls.insert(source.urls.begin(), o.mirrors.begin(), o.mirrors.end());
    const std::string path = (fs::path(o.out) / source.file).string();
    Progress line(!o.quiet);
    download(
        source, path,
        [&](int64_t done, int64_t total) {
          line.update(total > 0 ? double(done) / double(total) : 0, source.file,
                      total > 0 ? fmt::format("{:.0f} of {:.0f} MB", done / 1e6, total / 1e6)
                                : fmt::format("{:.0f} MB", done / 1e6));
        },
        [&](const std::string& note) {
          line.clear();
          if (!o.quiet) fmt::print("{}\n", note);
        });
    line.clear();
    if (!o.quiet) fmt::print("{}\n", path);
    return;
  }
  fail(o.name + ": unknown set");
}

}  // namespace

std::function<bool()> declare_data_fetch(CLI::App& app) {
  auto o = std::make_shared<FetchOptions>();
  CLI::App* fetch = app.add_subcommand("fetch", "download a public set, or say how to get it");
  fetch->add_option("NAME", o->name, "which set")->required()->check(CLI::IsMember(fetchable_sets()));
  fetch->add_option("--out", o->out, "folder")->capture_default_str();
  fetch->add_option("--mirror", o->mirrors, "another address of the file, tried first; repeatable");
  fetch->add_flag("--quiet", o->quiet, "print errors only");
  return [o, fetch] {
    if (fetch->parsed()) fetch_set(*o);
    return fetch->parsed();
  };
}

}  // namespace gm
