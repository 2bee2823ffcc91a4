// report.html: one run on one page that needs nothing else, no script and no network.
#pragma once
#include <string>
#include <vector>

#include "data/dataset.h"
#include "tools/evaluation.h"
#include "tools/model_file.h"

namespace gm {

/// What became of one evaluated image.
struct Outcome {
  int64_t row = 0;  // of the data
  int label = 0, predicted = 0;
  double probability = 0;  // of the predicted class
};

/// At most `count` wrong predictions, the surest first.
std::vector<Outcome> worst_mistakes(const std::vector<Outcome>& outcomes, size_t count);
/// Images worth an explanation, at most `count`: of each class the one that was recognised with most
/// confidence, then the worst mistakes.
std::vector<Outcome> telling_examples(const std::vector<Outcome>& outcomes, size_t count);

struct ReportInput {
  const ModelFile& model;
  const Evaluation& evaluation;
  const Dataset& data;
  std::vector<Outcome> outcomes;
  Image explanations;             // sheet of telling_examples(); empty: none
  std::string explanation_layer;  // of its Grad-CAM
  std::string command;            // that made the evaluation
};

/// The whole page. What lies beside the weights is used where it is there: metrics.csv for the curves,
/// config.yaml and split.csv for the cards. Throws gm::Error naming the file when one of them is malformed.
std::string report_html(const ReportInput& input);

}  // namespace gm
