// gm_data: fetch, select, make, pack and look at data sets.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>
#include <map>
#include <set>

#include "data/csv.h"
#include "data/pack.h"
#include "data/parallel.h"
#include "data/synthetic.h"
#include "engine/atomic_file.h"
#include "kernels/common/error.h"
#include "tools/cli.h"
#include "tools/data_commands.h"

namespace fs = std::filesystem;

namespace {

struct Options {
  std::string data, out, classes = "galaxy10", format = "jpg";
  int64_t count = 1000;
  int size = 0, workers = 0;
  uint64_t seed = 0;
  bool quiet = false;
};

bool is_hdf5_name(const std::string& path) {
  const std::string ext = gm::lower_extension(path);
  return ext == ".h5" || ext == ".hdf5";
}

void say(const Options& o, const std::string& line) {
  if (!o.quiet) fmt::print("{}\n", line);
}

/// Draws the progress line; throws gm::Error once the user wants to stop, so that what was begun is removed.
class Watch {
 public:
  Watch(const std::string& label, int64_t total, const Options& o)
      : line_(label, total, !o.quiet), total_(total) {}
  void operator()(int64_t done) {
    line_(done);
    if (stop_) gm::fail(fmt::format("interrupted after {} of {} images; nothing is complete", done, total_));
  }

 private:
  gm::CountProgress line_;
  int64_t total_;
  const std::atomic<bool>& stop_ = gm::stop_on_signals();
};

void pack(const gm::Dataset& data, const Options& o) {
  Watch watch("packing", data.size(), o);
  gm::pack_hdf5(data, o.out, {o.size, o.workers, [&](int64_t done) { watch(done); }});
}

/// images/<id>.<format> and, last, labels.csv, so that a folder with labels.csv is complete.
void write_folder(const gm::Dataset& data, const Options& o) {
  std::error_code ec;
  fs::create_directories(fs::path(o.out) / "images", ec);
  if (ec) gm::fail(o.out + ": cannot create the folder: " + ec.message());
  auto file = [&](int64_t i) { return "images/" + data.id(i) + "." + o.format; };
  Watch watch("drawing", data.size(), o);
  constexpr int64_t kStep = 64;
  for (int64_t at = 0; at < data.size(); at += kStep) {
    gm::parallel_for(std::min(kStep, data.size() - at), o.workers, [&](int64_t k) {
      gm::write_image((fs::path(o.out) / file(at + k)).string(), data.read(at + k));
    });
    watch(std::min(at + kStep, data.size()));
  }
  std::string csv = "id_str,file_loc,label,class\n";
  for (int64_t i = 0; i < data.size(); ++i)
    csv += fmt::format("{},{},{},{}\n", data.id(i), file(i), data.label(i),
                       gm::csv_cell(data.classes()[data.label(i)]));
  gm::write_file_atomic((fs::path(o.out) / "labels.csv").string(), csv);
}

void synth(Options o) {
  auto set = o.classes == "gz5" ? gm::SyntheticSet::gz5 : gm::SyntheticSet::galaxy10;
  // What looks like a data set may be somebody's galaxies.
  for (const std::string& there : {o.out, (fs::path(o.out) / "labels.csv").string()})
    if (fs::is_regular_file(there)) gm::fail(there + ": is there already; choose another --out");
  gm::SyntheticDataset data(set, o.count, o.size, o.seed);
  is_hdf5_name(o.out) ? pack(data, o) : write_folder(data, o);
  say(o, fmt::format("{}: {} synthetic galaxies, {} classes, {}x{} px, seed {}", o.out, o.count,
                     data.classes().size(), o.size, o.size, o.seed));
}

void info(const Options& o) {
  auto data = gm::open_dataset(o.data);
  // Sizes from a sample spread over the whole set: decoding everything would take minutes on a large one.
  constexpr int64_t kSample = 200;
  std::map<std::string, int64_t> sizes;
  int64_t n = data->size(), tried = 0, bad = 0;
  std::string first_bad;
  for (int64_t k = 0; k < std::min(n, kSample); ++k, ++tried) {
    try {
      gm::Image image = data->read(k * n / std::min(n, kSample));
      ++sizes[fmt::format("{}x{}", image.width, image.height)];
    } catch (const gm::Error& error) {
      if (bad++ == 0) first_bad = error.what();
    }
  }
  std::vector<int64_t> counts(data->classes().size());
  int64_t unlabelled = 0, positions = 0;
  double ra, dec;
  for (int64_t i = 0; i < n; ++i) {
    data->label(i) < 0 ? ++unlabelled : ++counts[data->label(i)];
    positions += data->sky(i, ra, dec);
  }
  fmt::print("{}\nimages     {}\n", data->path(), n);
  std::string list;
  for (auto& [size, count] : sizes)
    if (list.size() < 60)
      list += (list.empty() ? "" : ", ") + size + (sizes.size() > 1 ? fmt::format(" ({})", count) : "");
  fmt::print("size       {} px{}\n", list.empty() ? "?" : list,
             tried < n ? fmt::format(" (of {} read)", tried) : "");
  if (bad > 0) fmt::print("unreadable {} of {} read, first: {}\n", bad, tried, first_bad);
  if (positions > 0) fmt::print("positions  {}\n", positions);
  if (unlabelled > 0) fmt::print("unlabelled {}\n", unlabelled);
  size_t width = 5;
  for (const std::string& name : data->classes()) width = std::max(width, name.size());
  if (!counts.empty()) fmt::print("\nlabel  {:<{}}  {:>8}  {:>6}\n", "class", width, "images", "share");
  for (size_t k = 0; k < counts.size(); ++k)
    fmt::print("{:>5}  {:<{}}  {:>8}  {:>5.1f} %\n", k, data->classes()[k], width, counts[k],
               100.0 * counts[k] / std::max<int64_t>(1, n - unlabelled));
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Fetch, select, make, pack and look at galaxy data sets.");
  Options o;
  app.require_subcommand(1);
  auto common = [&](CLI::App* sub) {
    sub->add_option("--workers", o.workers, "threads (0: one per hardware thread)")
        ->check(CLI::Range(0, 256));
    sub->add_flag("--quiet", o.quiet, "print errors only");
  };

  CLI::App* synth_cmd = app.add_subcommand("synth", "draw seeded synthetic galaxies (a demo and a test bed)");
  synth_cmd->add_option("--classes", o.classes, "class set")
      ->check(CLI::IsMember({"gz5", "galaxy10"}))
      ->capture_default_str();
  synth_cmd->add_option("--count", o.count, "number of images")
      ->check(CLI::Range(int64_t{1}, int64_t{10000000}))
      ->capture_default_str();
  int synth_size = 256;
  synth_cmd->add_option("--size", synth_size, "side in px")
      ->check(CLI::Range(8, 4096))
      ->capture_default_str();
  synth_cmd->add_option("--seed", o.seed, "same seed, same pixels")
      ->capture_default_str()
      ->check(gm::check_not_negative);
  synth_cmd->add_option("--out", o.out, "folder (images/ and labels.csv) or FILE.h5")->required();
  synth_cmd->add_option("--format", o.format, "of images in a folder")
      ->check(CLI::IsMember({"jpg", "png"}))
      ->capture_default_str();
  common(synth_cmd);

  CLI::App* pack_cmd =
      app.add_subcommand("pack", "write any data set as one HDF5 file in the Galaxy10 layout");
  pack_cmd->add_option("DATA", o.data, ".h5, catalog .csv, folder or image")->required();
  pack_cmd->add_option("--out", o.out, "FILE.h5")->required()->check([](const std::string& path) {
    return is_hdf5_name(path) ? std::string() : path + ": the name must end in .h5 or .hdf5";
  });
  pack_cmd->add_option("--size", o.size, "resize to this side in px (0: keep)")->check(CLI::Range(0, 4096));
  common(pack_cmd);

  CLI::App* info_cmd = app.add_subcommand("info", "count, sizes and classes");
  info_cmd->add_option("DATA", o.data, ".h5, catalog .csv, folder or image")->required();

  gm::FetchOptions fetch;
  CLI::App* fetch_cmd = app.add_subcommand("fetch", "download a public set, or say how to get it");
  fetch_cmd->add_option("NAME", fetch.name, "which set")
      ->required()
      ->check(CLI::IsMember(gm::fetchable_sets()));
  fetch_cmd->add_option("--out", fetch.out, "folder")->capture_default_str();
  fetch_cmd->add_option("--mirror", fetch.mirrors, "another address of the file, tried first; repeatable");
  fetch_cmd->add_flag("--quiet", fetch.quiet, "print errors only");

  gm::CleanOptions clean;
  CLI::App* clean_cmd =
      app.add_subcommand("clean", "select the second paper's five clean classes (its Table 1)");
  clean_cmd->add_option("CSV", clean.csv, "training_solutions_rev1.csv of the Galaxy Zoo challenge")
      ->required();
  CLI::Option* images = clean_cmd->add_option("--images", clean.images, "folder that holds <GalaxyID>.jpg")
                            ->check(CLI::ExistingDirectory);
  clean_cmd->add_option("--out", clean.out, "catalog to write: FILE.csv; without it, counts only")
      ->needs(images);
  clean_cmd->add_flag(
      "--conditional", clean.conditional,
      "divide each vote fraction by its parent answer's first (not what the paper's counts mean)");
  clean_cmd->add_flag("--quiet", clean.quiet, "print errors only");

  gm::PreviewOptions preview;
  CLI::App* preview_cmd = app.add_subcommand("preview", "a PNG sheet of galaxies and their augmentations");
  preview_cmd->add_option("DATA", preview.data, ".h5, catalog .csv, folder or image")->required();
  preview_cmd->add_option("--config", preview.config, "configuration whose augmentation is shown")
      ->required();
  gm::add_sets(*preview_cmd, preview.sets, "override one key, e.g. --set augment.rotation_deg=180");
  preview_cmd->add_option("--out", preview.out, "FILE.png")->required();
  preview_cmd->add_option("--rows", preview.rows, "galaxies")
      ->check(CLI::Range(1, 100))
      ->capture_default_str();
  preview_cmd->add_option("--columns", preview.columns, "augmentations of each")
      ->check(CLI::Range(1, 50))
      ->capture_default_str();
  preview_cmd->add_option("--seed", preview.seed, "of the augmentation")
      ->capture_default_str()
      ->check(gm::check_not_negative);

  return gm::run_tool(app, argc, argv, [&] {
    if (*fetch_cmd) {
      gm::fetch_set(fetch);
    } else if (*clean_cmd) {
      gm::clean_samples(clean);
    } else if (*preview_cmd) {
      gm::preview_augmentation(preview);
    } else if (*synth_cmd) {
      o.size = synth_size;
      synth(o);
    } else if (*pack_cmd) {
      gm::keep_inputs(o.out, {o.data});
      auto data = gm::open_dataset(o.data);
      pack(*data, o);
      say(o, fmt::format("{}: {} images, {} classes, {:.1f} MB", o.out, data->size(), data->classes().size(),
                         fs::file_size(o.out) / 1e6));
    } else {
      info(o);
    }
  });
}
