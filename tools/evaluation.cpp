#include "tools/evaluation.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "data/utf8.h"
#include "tools/cli.h"

namespace gm {

namespace {

using Json = nlohmann::ordered_json;

Json pair(const Interval& i) { return {i.low, i.high}; }

Json calibration_json(const Evaluation& e) {
  Json j;
  j["ece"] = e.raw.ece;
  j["nll"] = e.raw.nll;
  j["brier"] = e.raw.brier;
  j["temperature"] = e.temperature;
  j["ece_calibrated"] = e.calibrated.ece;
  j["nll_calibrated"] = e.calibrated.nll;
  j["brier_calibrated"] = e.calibrated.brier;
  j["bins"] = Json::array();
  for (const ReliabilityBin& b : e.raw.bins)
    j["bins"].push_back({{"low", b.low},
                         {"high", b.high},
                         {"n", b.n},
                         {"confidence", b.confidence},
                         {"accuracy", b.accuracy}});
  return j;
}

Series reliability_series(const std::string& name, const Calibration& c) {
  Series s{.name = name, .mark = Series::Mark::line_points};
  for (const ReliabilityBin& b : c.bins) {
    if (b.n == 0) continue;
    s.x.push_back(b.confidence);
    s.y.push_back(b.accuracy);
    s.notes.push_back(
        fmt::format("{} images, confidence {:.3f}, accuracy {:.3f}", b.n, b.confidence, b.accuracy));
  }
  return s;
}

}  // namespace

void finish_evaluation(Evaluation& e, const std::vector<ScoredImage>& images, uint64_t seed) {
  e.metrics = metrics_of(e.confusion);
  e.intervals = bootstrap_metrics(e.confusion, seed);
  std::vector<const ScoredImage*> all;
  for (const ScoredImage& image : images) all.push_back(&image);
  e.temperature = fit_temperature(all);
  e.raw = calibration_of(images, std::vector<double>(images.size(), 1));
  e.calibrated = calibration_of(images, cross_fitted_temperatures(images, seed));
}

std::string metrics_json(const Evaluation& e) {
  const Metrics& m = e.metrics;
  Json j;
  j["accuracy"] = m.accuracy;
  j["accuracy_ci95"] = pair(e.intervals.accuracy);
  j["accuracy_within_one"] = m.accuracy_within_one;
  auto averages = [&](const std::string& name, const Averages& a, const MetricIntervals::Scores& i) {
    j[name + "precision"] = a.precision;
    j[name + "recall"] = a.recall;
    j[name + "f1"] = a.f1;
    j[name + "precision_ci95"] = pair(i.precision);
    j[name + "recall_ci95"] = pair(i.recall);
    j[name + "f1_ci95"] = pair(i.f1);
  };
  averages("macro_", m.macro, e.intervals.macro);
  averages("weighted_", m.weighted, e.intervals.weighted);
  j["n"] = m.n;
  j["classes"] = e.classes;
  j["confusion"] = Json::array();
  j["per_class"] = Json::array();
  for (int t = 0; t < e.confusion.classes(); ++t) {
    j["confusion"].push_back(e.confusion.row(t));
    const ClassScores& s = m.per_class[t];
    const auto& i = e.intervals.per_class[t];
    j["per_class"].push_back({{"class", e.classes[t]},
                              {"precision", s.precision},
                              {"recall", s.recall},
                              {"f1", s.f1},
                              {"support", s.support},
                              {"precision_ci95", pair(i.precision)},
                              {"recall_ci95", pair(i.recall)},
                              {"f1_ci95", pair(i.f1)}});
  }
  j["calibration"] = calibration_json(e);
  j["name"] = e.name;
  j["model"] = e.model;
  // Also for other folders.
  j["weights"] = utf8_of(std::filesystem::absolute(e.model).lexically_normal().string());
  j["data"] = e.data;
  j["split"] = e.split;
  j["tta"] = e.passes.symmetries;
  j["mc_dropout"] = e.passes.dropout;
  j["precision"] = e.precision;
  j["device"] = e.device;
  j["input"] = e.input_size;
  j["skipped_unlabelled"] = e.unlabelled;
  j["skipped_unreadable"] = e.unreadable;
  j["params_total"] = e.count.params_total;
  j["params_trainable"] = e.count.params_trainable;
  j["macs"] = e.count.macs;
  j["flops_eq13"] = e.count.flops_eq13;
  j["speed"] = Json::array();
  for (const SpeedRow& s : e.speed)
    j["speed"].push_back({{"batch", s.batch},
                          {"median_ms", s.median * 1e3},
                          {"p5_ms", s.p5 * 1e3},
                          {"p95_ms", s.p95 * 1e3},
                          {"images_per_second", s.images_per_second()}});
  return j.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

void print_scores(const Evaluation& e) {
  size_t width = 16;
  for (const auto& name : e.classes) width = std::max(width, name.size());
  auto cell = [](double value, const Interval& i) {
    return fmt::format("{:.4f} [{:.3f} {:.3f}]", value, i.low, i.high);
  };
  auto line = [&](const std::string& name, const auto& s, const MetricIntervals::Scores& i, int64_t n) {
    say(fmt::format("{:<{}}  {}  {}  {}  {:>8}", name, width, cell(s.precision, i.precision),
                    cell(s.recall, i.recall), cell(s.f1, i.f1), n));
  };
  say(fmt::format("{:<{}}  {:<20}  {:<20}  {:<20}  {:>8}", "class", width, "precision", "recall", "F1", "n"));
  const Metrics& m = e.metrics;
  for (size_t c = 0; c < e.classes.size(); ++c)
    line(e.classes[c], m.per_class[c], e.intervals.per_class[c], m.per_class[c].support);
  line("macro average", m.macro, e.intervals.macro, m.n);
  line("weighted average", m.weighted, e.intervals.weighted, m.n);
  say(fmt::format("accuracy {}; in brackets 95 % intervals (bootstrap over images)",
                  cell(m.accuracy, e.intervals.accuracy)));
  say(fmt::format("calibration error {:.4f}; {:.4f} with temperature {:.3f}", e.raw.ece, e.calibrated.ece,
                  e.temperature));
  say(fmt::format("{} parameters, {} MACs and {} FLOPs (eq. 13) an image of {} px", e.count.params_total,
                  e.count.macs, e.count.flops_eq13, e.input_size));
  if (e.speed.empty()) return;
  say(fmt::format("{:<8} {:>12} {:>10} {:>10} {:>10}", "batch", "median ms", "p5", "p95", "img/s"));
  for (const SpeedRow& s : e.speed)
    say(fmt::format("{:<8} {:>12.3f} {:>10.3f} {:>10.3f} {:>10.0f}", s.batch, s.median * 1e3, s.p5 * 1e3,
                    s.p95 * 1e3, s.images_per_second()));
}

Chart reliability_chart(const Evaluation& e) {
  return {
      .title = "Reliability",
      .x = {.label = "confidence (mean highest probability)", .low = 0, .high = 1},
      .y = {.label = "accuracy", .low = 0, .high = 1},
      .series = {{.name = "ideal", .x = {0, 1}, .y = {0, 1}, .dashed = true, .colour = Series::kGrey},
                 reliability_series(fmt::format("as it is, ECE {:.3f}", e.raw.ece), e.raw),
                 reliability_series(fmt::format("T = {:.2f}, ECE {:.3f}", e.temperature, e.calibrated.ece),
                                    e.calibrated)}};
}

}  // namespace gm
