#include "tools/training_record.h"

#include <algorithm>
#include <filesystem>

#include "data/csv.h"
#include "kernels/common/error.h"

namespace fs = std::filesystem;

namespace gm {

int TrainingRecord::best_epoch() const {
  const auto best = std::min_element(val_loss.begin(), val_loss.end());
  return best == val_loss.end() ? 0 : static_cast<int>(epoch[best - val_loss.begin()]);
}

std::optional<TrainingRecord> training_record_of(const std::string& weights) {
  const std::string path = (fs::path(weights).parent_path() / "metrics.csv").string();
  if (!fs::exists(path)) return {};
  const CsvTable table(path);
  TrainingRecord r;
  for (auto [name, values] : {std::pair{"epoch", &r.epoch},
                              {"train_loss", &r.train_loss},
                              {"train_accuracy", &r.train_accuracy},
                              {"val_loss", &r.val_loss},
                              {"val_accuracy", &r.val_accuracy},
                              {"lr", &r.lr}}) {
    const int column = table.column(name);
    if (column < 0) fail(path + ": has no column " + name + "; it has " + table.column_list());
    for (int64_t row = 0; row < table.rows(); ++row) {
      double value = 0;
      if (!parse_double(table.cell(row, column), value))
        fail(table.where(row) + ": " + name + " \"" + table.cell(row, column) + "\" is not a number");
      values->push_back(value);
    }
  }
  return r;
}

std::optional<TrainingRecord> training_record_if_any(const std::string& weights) {
  try {
    return training_record_of(weights);
  } catch (const Error&) {
    return {};
  }
}

namespace {

Chart curves(const TrainingRecord& r, const std::string& what, const std::vector<double>& train,
             const std::vector<double>& val) {
  const auto mark = r.epoch.size() < 3 ? Series::Mark::line_points : Series::Mark::line;
  Chart chart{.title = what,
              .x = {.label = "epoch"},
              .y = {.label = what},
              .series = {{.name = "training", .mark = mark, .x = r.epoch, .y = train},
                         {.name = "validation", .mark = mark, .x = r.epoch, .y = val}}};
  chart.width = 540;
  chart.height = 360;
  return chart;
}

}  // namespace

Chart loss_chart(const TrainingRecord& r) { return curves(r, "Loss", r.train_loss, r.val_loss); }
Chart accuracy_chart(const TrainingRecord& r) {
  return curves(r, "Accuracy", r.train_accuracy, r.val_accuracy);
}

}  // namespace gm
