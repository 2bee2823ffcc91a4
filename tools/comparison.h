// Evaluated networks side by side: the tables and figures in which the papers compare theirs.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "engine/metrics.h"
#include "tools/pictures/chart.h"
#include "tools/training_record.h"

namespace gm {

/// What a metrics.json of gm_eval says about one network.
struct ComparedNetwork {
  std::string name, data, split;
  std::vector<std::string> classes;
  int input = 0;  // px
  int64_t n = 0, params_total = 0, macs = 0, flops_eq13 = 0;
  double accuracy = 0, macro_precision = 0, macro_recall = 0, weighted_f1 = 0;
  Interval accuracy_interval;
  std::optional<double> latency_ms, images_per_second;  // of batch 1, and the most of any; needs --speed
  std::optional<TrainingRecord> record;                 // of the run that the weights lie in
  std::vector<std::string> ids;                         // of its images, sorted; empty where not known
};

/// `path`: a metrics.json or the folder that holds it. Throws gm::Error naming the file when it is missing or
/// not what gm_eval writes.
ComparedNetwork read_evaluation(const std::string& path);
/// Networks of one name get their input size behind it where that differs, and the numbers 2, 3, ... where it
/// does not.
void tell_apart(std::vector<ComparedNetwork>& networks);
/// A sentence when the networks were not evaluated on the same images, else "".
std::string different_data(const std::vector<ComparedNetwork>& networks);

/// S1 Table 2 and S2 Tables 3 and 4: a row for each network. S2's precision and recall are macro averages,
/// its F1 is the weighted one.
std::string comparison_csv(const std::vector<ComparedNetwork>& networks);
std::string comparison_markdown(const std::vector<ComparedNetwork>& networks);

/// S1 Fig. 6: validation accuracy against the epoch.
Chart epochs_chart(const std::vector<ComparedNetwork>& networks);
/// S2 Fig. 4 and 5: accuracy with its 95 % interval against cost.
Chart macs_chart(const std::vector<ComparedNetwork>& networks);
Chart parameters_chart(const std::vector<ComparedNetwork>& networks);

}  // namespace gm
