#include "tools/comparison.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "data/csv.h"
#include "data/utf8.h"
#include "kernels/common/error.h"

namespace gm {

namespace {

namespace fs = std::filesystem;

nlohmann::json read_json(const std::string& file) {
  std::ifstream in(file);
  if (!in) fail(file + ": no such file; gm_eval --out writes it");
  try {
    return nlohmann::json::parse(in);
  } catch (const nlohmann::json::exception&) {
    fail(file + ": not JSON");
  }
}

/// Text in a Markdown table.
std::string table_cell(std::string text) {
  for (size_t at = 0; (at = text.find('|', at)) != std::string::npos; at += 2) text.insert(at, "\\");
  return text;
}

std::string optional_text(const std::optional<double>& value, int digits) {
  return value ? fmt::format("{:.{}f}", *value, digits) : "";
}

/// The images of an evaluation, sorted; empty where its predictions are gone.
std::vector<std::string> evaluated_ids(const std::string& predictions) {
  std::vector<std::string> ids;
  if (!fs::exists(predictions)) return ids;
  const CsvTable table(predictions);
  const int column = table.column("id_str");
  for (int64_t r = 0; column >= 0 && r < table.rows(); ++r) ids.push_back(table.cell(r, column));
  std::sort(ids.begin(), ids.end());
  return ids;
}

/// A folder and the catalog in it are one set of images.
fs::path data_path(const std::string& path) {
  fs::path p = fs::path(path).lexically_normal();
  if (p.filename() == "labels.csv" || p.filename().empty()) p = p.parent_path();
  return p;
}

/// Accuracy against a cost.
Chart cost_chart(const std::vector<ComparedNetwork>& networks, const std::string& label,
                 int64_t ComparedNetwork::*cost) {
  Chart chart{
      .title = "Accuracy and " + label, .x = {.label = label, .log = true}, .y = {.label = "accuracy"}};
  for (const ComparedNetwork& n : networks)
    chart.series.push_back(
        {.name = n.name,
         .mark = Series::Mark::points,
         .x = {static_cast<double>(n.*cost)},
         .y = {n.accuracy},
         .low = {n.accuracy_interval.low},
         .high = {n.accuracy_interval.high},
         .notes = {fmt::format("{}: {} {}, accuracy {:.4f}", n.name, n.*cost, label, n.accuracy)}});
  return chart;
}

}  // namespace

ComparedNetwork read_evaluation(const std::string& path) {
  const std::string file = fs::is_directory(path) ? (fs::path(path) / "metrics.json").string() : path;
  const nlohmann::json j = read_json(file);
  ComparedNetwork n;
  try {
    n.name = j.at("name").get<std::string>();
    n.input = j.at("input").get<int>();
    n.data = j.at("data").get<std::string>();
    n.split = j.at("split").get<std::string>();
    n.classes = j.at("classes").get<std::vector<std::string>>();
    n.n = j.at("n").get<int64_t>();
    n.params_total = j.at("params_total").get<int64_t>();
    n.macs = j.at("macs").get<int64_t>();
    n.flops_eq13 = j.at("flops_eq13").get<int64_t>();
    n.accuracy = j.at("accuracy").get<double>();
    n.macro_precision = j.at("macro_precision").get<double>();
    n.macro_recall = j.at("macro_recall").get<double>();
    n.weighted_f1 = j.at("weighted_f1").get<double>();
    n.accuracy_interval = {j.at("accuracy_ci95").at(0).get<double>(),
                           j.at("accuracy_ci95").at(1).get<double>()};
    for (const auto& row : j.at("speed")) {
      if (row.at("batch").get<int64_t>() == 1) n.latency_ms = row.at("median_ms").get<double>();
      const double speed = row.at("images_per_second").get<double>();
      n.images_per_second = std::max(n.images_per_second.value_or(0), speed);
    }
    const std::string weights = j.value("weights", j.at("model").get<std::string>());
    n.record = training_record_of(weights);
    if (!n.record) n.record = training_record_of(bytes_of(weights));
    n.ids = evaluated_ids((fs::path(file).parent_path() / "predictions.csv").string());
  } catch (const nlohmann::json::exception& e) {
    const std::string why = e.what();  // "[json.exception.out_of_range.403] key 'name' not found"
    fail(file + ": not written by gm_eval of this version: " + why.substr(why.find("] ") + 2));
  }
  return n;
}

void tell_apart(std::vector<ComparedNetwork>& networks) {
  std::map<std::string, std::set<int>> sizes;
  for (const ComparedNetwork& n : networks) sizes[n.name].insert(n.input);
  for (ComparedNetwork& n : networks)
    if (sizes[n.name].size() > 1) n.name += fmt::format(", {} px", n.input);
  std::set<std::string> used;
  for (ComparedNetwork& n : networks) {
    const std::string name = n.name;
    for (int k = 2; !used.insert(n.name).second; ++k) n.name = fmt::format("{} ({})", name, k);
  }
}

std::string different_data(const std::vector<ComparedNetwork>& networks) {
  for (const ComparedNetwork& n : networks) {
    const ComparedNetwork& first = networks.front();
    // Ids alone are not enough: of many sets they are the numbers of the rows.
    const bool other_ids = !n.ids.empty() && !first.ids.empty() && n.ids != first.ids;
    if (n.n != first.n || data_path(n.data) != data_path(first.data) || n.split != first.split ||
        n.classes != first.classes || other_ids)
      return fmt::format("not the same images: {} on {} of {} ({}), {} on {} of {} ({})", first.name, first.n,
                         first.data, first.split, n.name, n.n, n.data, n.split);
  }
  return "";
}

std::string comparison_csv(const std::vector<ComparedNetwork>& networks) {
  std::string out =
      "model,input,n,accuracy,accuracy_low,accuracy_high,macro_precision,macro_recall,weighted_f1,"
      "params_total,macs,flops_eq13,latency_ms,images_per_second\n";
  for (const ComparedNetwork& n : networks)
    out +=
        fmt::format("{},{},{},{:.6f},{:.6f},{:.6f},{:.6f},{:.6f},{:.6f},{},{},{},{},{}\n", csv_cell(n.name),
                    n.input, n.n, n.accuracy, n.accuracy_interval.low, n.accuracy_interval.high,
                    n.macro_precision, n.macro_recall, n.weighted_f1, n.params_total, n.macs, n.flops_eq13,
                    optional_text(n.latency_ms, 4), optional_text(n.images_per_second, 1));
  return out;
}

std::string comparison_markdown(const std::vector<ComparedNetwork>& networks) {
  std::string out =
      "| Model | Input px | Accuracy % | 95 % interval | Macro precision % | Macro recall % "
      "| Weighted F1 % | Parameters | MACs | FLOPs (eq. 13) | Latency ms | img/s |\n"
      "|---|---|---|---|---|---|---|---|---|---|---|---|\n";
  for (const ComparedNetwork& n : networks)
    out += fmt::format(
        "| {} | {} | {:.1f} | {:.1f} to {:.1f} | {:.1f} | {:.1f} "
        "| {:.1f} | {:.2f} M | {:.1f} M | {:.1f} M | {} | {} |\n",
        table_cell(n.name), n.input, 100 * n.accuracy, 100 * n.accuracy_interval.low,
        100 * n.accuracy_interval.high, 100 * n.macro_precision, 100 * n.macro_recall, 100 * n.weighted_f1,
        static_cast<double>(n.params_total) / 1e6, static_cast<double>(n.macs) / 1e6,
        static_cast<double>(n.flops_eq13) / 1e6, optional_text(n.latency_ms, 2),
        optional_text(n.images_per_second, 0));
  return out;
}

Chart epochs_chart(const std::vector<ComparedNetwork>& networks) {
  Chart chart{.title = "Validation accuracy", .x = {.label = "epoch"}, .y = {.label = "accuracy"}};
  for (const ComparedNetwork& n : networks)
    if (n.record) chart.series.push_back({.name = n.name, .x = n.record->epoch, .y = n.record->val_accuracy});
  return chart;
}

Chart macs_chart(const std::vector<ComparedNetwork>& networks) {
  return cost_chart(networks, "MACs", &ComparedNetwork::macs);
}
Chart parameters_chart(const std::vector<ComparedNetwork>& networks) {
  return cost_chart(networks, "parameters", &ComparedNetwork::params_total);
}

}  // namespace gm
