#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>

#include "data/dataset.h"
#include "kernels/common/error.h"
#include "layers/config.h"
#include "tools/cli.h"
#include "tools/data_commands.h"
#include "tools/pictures/augmented_picture.h"
#include "tools/pictures/canvas.h"
#include "tools/run_config.h"

namespace gm {
namespace {

struct PreviewOptions {
  std::string data, config, out;
  std::vector<std::string> sets;
  int rows = 0, columns = 8;
  uint64_t seed = 0;
};

constexpr int kLeastRows = 6, kMostRows = 100;
constexpr int kCell = 128, kGap = 6, kTop = 22;
constexpr Colour kPaper{255, 255, 255}, kInk{30, 30, 30};

/// `count` rows spread over the set, one of each class as far as there are labels.
std::vector<int64_t> choose_rows(const Dataset& data, int count) {
  std::vector<int64_t> rows;
  const int classes = static_cast<int>(data.classes().size());
  for (int k = 0; k < classes && static_cast<int>(rows.size()) < count; ++k)
    for (int64_t i = 0; i < data.size(); ++i)
      if (data.label(i) == k) {
        rows.push_back(i);
        break;
      }
  const int64_t wanted = std::min<int64_t>(count, data.size());
  for (int64_t parts = wanted; static_cast<int64_t>(rows.size()) < wanted; parts *= 2)
    for (int64_t k = 0; k < parts && static_cast<int64_t>(rows.size()) < wanted; ++k) {
      const int64_t i = k * data.size() / parts;
      if (std::find(rows.begin(), rows.end(), i) == rows.end()) rows.push_back(i);
    }
  return rows;
}

void preview_augmentation(const PreviewOptions& o) {
  keep_inputs(o.out, {o.data, o.config});
  const YAML::Node yaml = load_config(o.config, o.sets);
  const TransformConfig config = read_run_config(yaml, o.config).transform;
  const auto data = open_dataset(o.data);
  if (data->size() == 0) fail(o.data + ": holds no image");
  std::vector<std::string> files;
  for (int64_t row = 0; row < data->size(); ++row) files.push_back(data->file(row));
  keep_inputs(o.out, files);
  const Transform evaluation(config, false), training(config, true);
  const int classes = static_cast<int>(data->classes().size());
  const std::vector<int64_t> rows =
      choose_rows(*data, o.rows ? o.rows : std::clamp(classes, kLeastRows, kMostRows));
  const int columns = 2 + o.columns;
  Canvas sheet(kGap + columns * (kCell + kGap), kTop + static_cast<int>(rows.size()) * (kCell + kGap),
               kPaper);
  const std::string titles[] = {"original", fmt::format("validation, {} px", config.size), "training"};
  for (int k = 0; k < 3; ++k) sheet.text(kGap + k * (kCell + kGap), 7, 1, kInk, titles[k]);
  for (size_t r = 0; r < rows.size(); ++r) {
    const Image image = data->read(rows[r]);
    const int y = kTop + static_cast<int>(r) * (kCell + kGap);
    for (int c = 0; c < columns; ++c) {
      const auto row = static_cast<uint32_t>(rows[r]);
      const Image shown = c == 0 ? image
                          : c == 1
                              ? augmented_image(evaluation, image, o.seed, 0, row)
                              : augmented_image(training, image, o.seed, static_cast<uint32_t>(c - 2), row);
      sheet.paste(kGap + c * (kCell + kGap), y, resize_image(shown, kCell));
    }
    const int label = data->label(rows[r]);
    if (label >= 0)
      sheet.text(kGap + 4, y + kCell - 12, 1, kPaper,
                 Canvas::shortened(data->classes()[label], (kCell - 8) / Canvas::kAdvance));
  }
  write_image(o.out, sheet.image());
}

}  // namespace

std::function<bool()> declare_data_preview(CLI::App& app) {
  auto o = std::make_shared<PreviewOptions>();
  CLI::App* preview = app.add_subcommand("preview", "a PNG sheet of galaxies and their augmentations");
  preview->add_option("DATA", o->data, ".h5, catalog .csv, folder or image")->required();
  preview->add_option("--config", o->config, "configuration whose augmentation is shown")->required();
  add_sets(*preview, o->sets, "override one key, e.g. --set augment.rotation_deg=180");
  preview->add_option("--out", o->out, "FILE.png")->required();
  preview->add_option("--rows", o->rows, "galaxies (default: 6, or one of each class)")
      ->check(CLI::Range(1, kMostRows));
  preview->add_option("--columns", o->columns, "augmentations of each")
      ->check(CLI::Range(1, 50))
      ->capture_default_str();
  preview->add_option("--seed", o->seed, "of the augmentation")
      ->capture_default_str()
      ->check(check_not_negative);
  return [o, preview] {
    if (preview->parsed()) preview_augmentation(*o);
    return preview->parsed();
  };
}

}  // namespace gm
