// Images through a trained network, batch by batch: what gm_infer and gm_eval have in common.
#pragma once
#include <chrono>
#include <functional>
#include <string>
#include <vector>

#include "data/loader.h"
#include "data/predictions.h"
#include "tools/cli.h"
#include "tools/model_file.h"

namespace gm {

/// Names of all classes; a class without a name is called by its index.
std::vector<std::string> class_names(const Architecture& a);

class Classifier {
 public:
  struct Options {
    std::string tool;     // name at the start of the lines about skipped images
    int64_t total = 0;    // images in all calls of run(), for the progress line
    bool strict = false;  // throw on the first unreadable image; a single image asked for alone always does
    bool quiet = false;   // no progress line
  };
  Classifier(Predictor& predictor, const TransformConfig& transform, const Options& options);

  /// One call per batch: the predictions (without labels) and the rows they belong to.
  using Sink = std::function<void(const std::vector<int64_t>& rows, std::vector<Prediction>& predictions)>;
  /// Classifies these rows in order; unreadable images are reported on standard error and left out.
  void run(const std::shared_ptr<const Dataset>& data, const std::vector<int64_t>& rows, const Sink& sink);
  /// Throws gm::Error when not one image could be read.
  void expect_some() const;

  int64_t done() const { return done_; }
  int64_t bad() const { return bad_; }
  /// "120 images classified, 1 skipped in 3 s (40 img/s)"
  std::string summary() const;

 private:
  double seconds() const;

  Predictor& predictor_;
  TransformConfig transform_;
  Options options_;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  int64_t done_ = 0, bad_ = 0;
};

}  // namespace gm
