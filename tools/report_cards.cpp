#include "tools/report_cards.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <optional>
#include <sstream>

#include "data/csv.h"
#include "engine/atomic_file.h"
#include "kernels/common/error.h"
#include "tools/pictures/markup.h"
#include "tools/run_config.h"
#include "tools/run_folder.h"
#include "tools/shell.h"
#include "tools/training_record.h"

namespace gm {

namespace {

namespace fs = std::filesystem;

/// The path of a file beside the weights, or "" where there is none.
std::string beside(const std::string& weights, const char* name) {
  const fs::path path = fs::path(weights).parent_path() / name;
  return fs::exists(path) ? path.string() : "";
}

/// Names and values below each other; values may be long.
class CardTable {
 public:
  void line(const std::string& name, const std::string& value) {
    text_ += "<tr><td>" + markup_text(name) + "</td><td>" + markup_text(value) + "</td></tr>\n";
  }
  std::string text() const { return "<table class=\"card\"><tbody>\n" + text_ + "</tbody></table>\n"; }

 private:
  std::string text_;
};

std::string optimizer_text(const RunConfig& c) {
  return fmt::format("{}, learning rate {:g}, schedule {}, weight decay {:g}",
                     optimizer_name(c.optimizer.kind).title, c.optimizer.lr,
                     schedule_name(c.schedule.kind).title, c.optimizer.weight_decay);
}

std::string passes_text(const Passes& p) {
  if (!p.symmetries && p.dropout == 0) return "one pass";
  return fmt::format("mean over {}{}{}", p.symmetries ? "8 rotations and reflections" : "",
                     p.symmetries && p.dropout ? " of each of " : "",
                     p.dropout ? fmt::format("{} dropout masks", p.dropout) : "");
}

/// Labelled images by class and part, from split.csv.
struct SplitCounts {
  explicit SplitCounts(const std::string& path) {
    const CsvTable table(path);
    const int part = table.column("split"), label = table.column("label");
    if (part < 0 || label < 0)
      fail(path + ": needs the columns label and split; it has " + table.column_list());
    for (int64_t r = 0; r < table.rows(); ++r) {
      int64_t c = 0;
      if (!parse_int(table.cell(r, label), c) || c < 0)
        fail(table.where(r) + ": label \"" + table.cell(r, label) + "\" is not a class index");
      if (c >= static_cast<int64_t>(counts.size())) counts.resize(static_cast<size_t>(c) + 1);
      const std::string& name = table.cell(r, part);
      ++counts[static_cast<size_t>(c)][name == "train" ? 0 : name == "val" ? 1 : 2];
    }
  }
  std::array<int64_t, 3> of(size_t c) const {
    return c < counts.size() ? counts[c] : std::array<int64_t, 3>{};
  }
  std::vector<std::array<int64_t, 3>> counts;
};

}  // namespace

std::string count_text(int64_t n) {
  const auto v = static_cast<double>(n);
  return v >= 1e9   ? fmt::format("{:.2f} G", v / 1e9)
         : v >= 1e6 ? fmt::format("{:.2f} M", v / 1e6)
         : v >= 1e4 ? fmt::format("{:.1f} k", v / 1e3)
                    : fmt::format("{}", n);
}

namespace {

/// The configuration of the run beside a weight file; nothing where there is none, or that of another
/// program.
std::optional<RunConfig> run_config_beside(const std::string& model) {
  const std::string path = beside(model, "config.yaml");
  if (path.empty()) return {};
  try {
    return read_run_config(load_config(path), path);
  } catch (const Error&) {
    return {};
  }
}

/// A folder and the catalog in it are one set of images.
bool same_data(const std::string& a, const std::string& b) {
  std::error_code error;
  return fs::equivalent(a, b, error) || fs::equivalent(a + "/labels.csv", b, error) ||
         fs::equivalent(a, b + "/labels.csv", error);
}

}  // namespace

std::string overlap_warning(const Evaluation& e) {
  if (e.split == "train") return "These are the images that the network was trained on.";
  const std::optional<RunConfig> config = run_config_beside(e.model);
  if (e.split != "all" || !config || beside(e.model, "split.csv").empty()) return "";
  if (config->data_path.empty() || !same_data(config->data_path, e.data)) return "";
  return "Among these are the images that the network was trained on; --split val leaves them out.";
}

std::string model_card(const ReportInput& in) {
  const Evaluation& e = in.evaluation;
  const Architecture& a = in.model.architecture;
  CardTable t;
  t.line("network", a.name);
  t.line("weights", e.model);
  t.line("input", fmt::format("{0} x {0} px, RGB, (x - mean) / std with mean {1} and std {2}", a.input_size,
                              fmt::join(a.mean, ", "), fmt::join(a.std, ", ")));
  t.line("preparation", in.model.transform.crop_eval > 0
                            ? fmt::format("centre crop of {:g} px of the original scale, resized",
                                          in.model.transform.crop_eval)
                            : "the whole image, resized");
  t.line("output", fmt::format("probabilities of {} classes: {}", a.classes, fmt::join(e.classes, ", ")));
  t.line("parameters", fmt::format("{} ({} trainable)", e.count.params_total, e.count.params_trainable));
  t.line("MACs", fmt::format("{}; FLOPs by the second paper's Eq. 13: {}", e.count.macs, e.count.flops_eq13));
  t.line("padding", a.same_padding ? "TensorFlow SAME" : "symmetric");
  std::string config_text;
  if (const std::optional<RunConfig> c = run_config_beside(e.model)) {
    t.line("training data", c->data_path);
    t.line("training", fmt::format("{} epochs at most, batch {}, seed {}, {}", c->train.epochs,
                                   c->train.batch, c->train.seed, c->train.precision()));
    t.line("optimizer", optimizer_text(*c));
    config_text = "<details><summary>config.yaml</summary><pre>" +
                  markup_text(read_file(beside(e.model, "config.yaml"))) + "</pre></details>\n";
  }
  if (const auto record = training_record_if_any(e.model); record && record->best_epoch())
    t.line("trained for", fmt::format("{} epochs; lowest validation loss in epoch {}", record->epoch.size(),
                                      record->best_epoch()));
  t.line("limits",
         "Every image gets one of these classes, also one that shows none of them. The scores hold for "
         "images like those evaluated here: same survey, scale and selection.");
  return t.text() + config_text;
}

std::string data_card(const ReportInput& in) {
  const Evaluation& e = in.evaluation;
  CardTable t;
  t.line("data", e.data);
  t.line("evaluated",
         fmt::format("{} images ({})", e.metrics.n, e.split == "all" ? "all with a label" : e.split));
  t.line("left out", fmt::format("{} without a label, {} unreadable", e.unlabelled, e.unreadable));
  int64_t placed = 0;
  double ra = 0, dec = 0;
  for (const Outcome& o : in.outcomes) placed += in.data.sky(o.row, ra, dec);
  t.line("positions", fmt::format("known for {} of {}", placed, in.outcomes.size()));
  if (!in.outcomes.empty()) {
    const Image first = in.data.read(in.outcomes.front().row);
    t.line("first image", fmt::format("{} x {} px", first.width, first.height));
  }
  const std::string split = beside(e.model, "split.csv");
  std::optional<SplitCounts> counts;
  if (!split.empty()) try {
      counts.emplace(split);
    } catch (const Error&) {  // of some other program
    }
  std::string table = "<div class=\"scroll\"><table><thead><tr><th>class</th>";
  if (counts) table += "<th>trained on</th><th>validation</th><th>test</th>";
  table += "<th>evaluated</th><th>share</th></tr></thead><tbody>\n";
  for (size_t c = 0; c < e.classes.size(); ++c) {
    table += "<tr><td>" + markup_text(e.classes[c]) + "</td>";
    if (counts)
      for (int64_t n : counts->of(c)) table += fmt::format("<td>{}</td>", n);
    const int64_t n = e.metrics.per_class[c].support;
    table +=
        fmt::format("<td>{}</td><td>{:.1f} %</td></tr>\n", n,
                    100.0 * static_cast<double>(n) / static_cast<double>(std::max<int64_t>(1, e.metrics.n)));
  }
  return t.text() + table + "</tbody></table></div>\n";
}

std::string commands(const ReportInput& in) {
  std::string text;
  if (const std::string log = beside(in.evaluation.model, "log.txt"); !log.empty()) {
    std::istringstream lines(read_file(log));
    for (std::string line; std::getline(lines, line);)
      if (line.starts_with(kCommandInLog)) text += line.substr(kCommandInLog.size()) + "\n";
  }
  if (const std::string config = beside(in.evaluation.model, "config.yaml"); !config.empty())
    text += "gm_train " + shell_word(config) + " --out NEW_FOLDER   # the same training again\n";
  return "<pre>" + markup_text(text + in.command + "\n") + "</pre>\n<p class=\"soft\">" +
         markup_text(in.evaluation.device + ", " + in.evaluation.precision + ", " +
                     passes_text(in.evaluation.passes)) +
         "</p>\n";
}

}  // namespace gm
