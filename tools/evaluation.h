// What gm_eval measured: the numbers behind metrics.json, the table on the terminal and the report.
#pragma once
#include <string>
#include <vector>

#include "engine/calibration.h"
#include "engine/metrics.h"
#include "layers/count.h"
#include "tools/classify.h"
#include "tools/pictures/chart.h"

namespace gm {

/// Seconds that one batch takes in inference, without reading images.
struct SpeedRow {
  int64_t batch = 0;
  double median = 0, p5 = 0, p95 = 0;
  double images_per_second() const { return static_cast<double>(batch) / median; }
};

struct Evaluation {
  std::string name, model, data, split, device, precision;
  int input_size = 0;
  Passes passes;
  std::vector<std::string> classes;
  NetworkCount count;
  int64_t unlabelled = 0, unreadable = 0;

  ConfusionMatrix confusion{1};
  Metrics metrics;
  MetricIntervals intervals;    // 95 %, bootstrap over images
  double temperature = 1;       // with the least log loss on these images
  Calibration raw, calibrated;  // calibrated: each half of the images with the temperature of the other half
  std::vector<SpeedRow> speed;  // empty: not asked for
};

/// Fills in what follows from the confusion matrix and from the scores of the same images.
void finish_evaluation(Evaluation& e, const std::vector<ScoredImage>& images, uint64_t seed);

/// Text of metrics.json.
std::string metrics_json(const Evaluation& e);
/// Scores by class with their intervals, calibration and speed, on standard error.
void print_scores(const Evaluation& e);

/// Reliability diagram: accuracy against confidence, before and after temperature scaling.
Chart reliability_chart(const Evaluation& e);

}  // namespace gm
