// gm_data: fetch, select, make, pack and look at data sets.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>
#include <map>
#include <memory>

#include "data/csv.h"
#include "data/file_names.h"
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
  std::vector<std::string> names;  // of the classes
  uint64_t seed = 0;
  bool quiet = false;
};

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
  for (const fs::path& folder : {fs::path(o.out), fs::path(o.out) / "images"}) gm::make_folder(folder);
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

void synth(const Options& o) {
  auto set = o.classes == "gz5" ? gm::SyntheticSet::gz5 : gm::SyntheticSet::galaxy10;
  // What looks like a data set may be somebody's galaxies.
  for (const std::string& there : {o.out, (fs::path(o.out) / "labels.csv").string()})
    if (fs::is_regular_file(there)) gm::fail(there + ": is there already; choose another --out");
  gm::SyntheticDataset data(set, o.count, o.size, o.seed);
  gm::is_hdf5_name(o.out) ? pack(data, o) : write_folder(data, o);
  say(o, fmt::format("{}: {} synthetic galaxies, {} classes, {}x{} px, seed {}", o.out, o.count,
                     data.classes().size(), o.size, o.size, o.seed));
}

void pack_file(const Options& o) {
  if (o.size > 0 && o.size < 4)
    throw gm::UsageError(fmt::format("--size: {} px is below the least, 4", o.size));
  gm::keep_inputs(o.out, {o.data});
  auto data = gm::open_dataset(o.data, {.classes = o.names});
  pack(*data, o);
  say(o, fmt::format("{}: {} images, {} classes, {:.1f} MB", o.out, data->size(), data->classes().size(),
                     fs::file_size(o.out) / 1e6));
}

void info(const Options& o) {
  auto data = gm::open_dataset(o.data, {.classes = o.names});
  // Sizes from a sample spread over the whole set: decoding everything would take minutes on a large one.
  constexpr int64_t kSample = 200;
  std::map<std::string, int64_t> sizes;
  int64_t n = data->size(), tried = 0, bad = 0;
  std::string first_bad;
  for (int64_t k = 0; k < std::min(n, kSample); ++k, ++tried) {
    try {
      gm::Image image = data->read(k * n / std::min(n, kSample));
      ++sizes[fmt::format("{}x{}", image.width, image.height)];
    } catch (const gm::MachineError&) {
      throw;
    } catch (const gm::Error& error) {
      if (bad++ == 0) first_bad = error.what();
    }
  }
  std::vector<int64_t> counts(data->classes().size());
  int64_t unlabelled = 0, positions = 0, shared = 0;
  double ra, dec;
  for (int64_t i = 0; i < n; ++i) {
    data->label(i) < 0 ? ++unlabelled : ++counts[data->label(i)];
    positions += data->sky(i, ra, dec);
    const auto shares = data->soft_label(i);
    shared += std::ranges::count_if(shares, [](float share) { return share > 0; }) > 1;
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
  const bool no_label = counts.empty() && gm::lower_extension(data->path()) == ".csv";
  if (unlabelled > 0)
    fmt::print(
        "unlabelled {}{}\n", unlabelled,
        no_label ? " (labels are read from columns label and class; --classes names columns of shares)" : "");
  if (shared > 0)
    fmt::print("soft       {} images are of several classes, counted for the largest share\n", shared);
  size_t width = 5;
  for (const std::string& name : data->classes()) width = std::max(width, name.size());
  if (!counts.empty()) fmt::print("\nlabel  {:<{}}  {:>8}  {:>6}\n", "class", width, "images", "share");
  for (size_t k = 0; k < counts.size(); ++k)
    fmt::print("{:>5}  {:<{}}  {:>8}  {:>5.1f} %\n", k, data->classes()[k], width, counts[k],
               100.0 * counts[k] / std::max<int64_t>(1, n - unlabelled));
}

// The subcommands, declared as data_commands.h says.

void declare_classes(CLI::App& sub, Options& o) {
  sub.add_option("--classes", o.names, "names of the classes, for a catalog with a column of shares for each")
      ->delimiter(',');
}

void declare_common(CLI::App& sub, Options& o) {
  sub.add_option("--workers", o.workers, "threads (0: one per processor)")->check(CLI::Range(0, 256));
  sub.add_flag("--quiet", o.quiet, "print errors only");
}

std::function<bool()> declare_synth(CLI::App& app) {
  auto o = std::make_shared<Options>();
  o->size = 256;
  CLI::App* sub = app.add_subcommand("synth", "draw seeded synthetic galaxies (a demo and a test bed)");
  sub->add_option("--classes", o->classes, "class set")
      ->check(CLI::IsMember({"gz5", "galaxy10"}))
      ->capture_default_str();
  sub->add_option("--count", o->count, "number of images")
      ->check(CLI::Range(int64_t{1}, int64_t{10000000}))
      ->capture_default_str();
  sub->add_option("--size", o->size, "side in px")->check(CLI::Range(8, 4096))->capture_default_str();
  sub->add_option("--seed", o->seed, "same seed, same pixels")
      ->capture_default_str()
      ->check(gm::check_not_negative);
  sub->add_option("--out", o->out, "folder (images/ and labels.csv) or FILE.h5")->required();
  sub->add_option("--format", o->format, "of images in a folder")
      ->check(CLI::IsMember({"jpg", "png"}))
      ->capture_default_str();
  declare_common(*sub, *o);
  return [o, sub] {
    if (sub->parsed()) synth(*o);
    return sub->parsed();
  };
}

std::function<bool()> declare_pack(CLI::App& app) {
  auto o = std::make_shared<Options>();
  CLI::App* sub = app.add_subcommand("pack", "write any data set as one HDF5 file in the Galaxy10 layout");
  sub->add_option("DATA", o->data, ".h5, catalog .csv, folder or image")->required();
  sub->add_option("--out", o->out, "FILE.h5")->required()->check([](const std::string& path) {
    return gm::is_hdf5_name(path) ? std::string() : path + ": the name must end in .h5 or .hdf5";
  });
  sub->add_option("--size", o->size, "resize to this side in px (0: keep)")->check(CLI::Range(0, 4096));
  declare_classes(*sub, *o);
  declare_common(*sub, *o);
  return [o, sub] {
    if (sub->parsed()) pack_file(*o);
    return sub->parsed();
  };
}

std::function<bool()> declare_info(CLI::App& app) {
  auto o = std::make_shared<Options>();
  CLI::App* sub = app.add_subcommand("info", "count, sizes and classes");
  sub->add_option("DATA", o->data, ".h5, catalog .csv, folder or image")->required();
  declare_classes(*sub, *o);
  return [o, sub] {
    if (sub->parsed()) info(*o);
    return sub->parsed();
  };
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Fetch, select, make, pack and look at galaxy data sets.");
  app.require_subcommand(1);
  const std::function<bool()> commands[]{declare_synth(app),          declare_pack(app),
                                         declare_info(app),           gm::declare_data_fetch(app),
                                         gm::declare_data_clean(app), gm::declare_data_preview(app)};
  return gm::run_tool(app, argc, argv, [&] {
    for (const auto& run : commands)
      if (run()) return;
  });
}
