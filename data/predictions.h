// Predictions on their way to disk: written as they come, never collected in memory.
#pragma once
#include <memory>
#include <string>
#include <vector>

namespace gm {

/// One classified image.
struct Prediction {
  std::string id;
  std::vector<double> probabilities;  // per class, sums to 1
  std::vector<float> logits;          // per class
  int label = -1;                     // true class, where it is known
};

/// The class with the highest probability; the first of equals.
int predicted_class(const Prediction& p);

/// Columns besides id, class and probabilities.
struct PredictionColumns {
  bool logits = false, labels = false;
};

class PredictionWriter {
 public:
  virtual ~PredictionWriter() = default;
  virtual void write(const std::vector<Prediction>& rows) = 0;
  /// Gives the file its final name. Without it nothing under that name is touched.
  virtual void finish() = 0;
};

/// By the extension of `path`: .h5/.hdf5 (datasets id_str (N), class (N) int32, probabilities (N, C) f32 and,
/// if asked for, label (N) int32 and logits (N, C) f32; attribute class_names) or CSV (columns id_str,
/// [label,] class, p_<class>..., and z_<class>... with logits; label and class are names, the label of an
/// unlabelled row is empty). "-" is CSV on standard output. Throws gm::Error when it cannot be written.
std::unique_ptr<PredictionWriter> open_predictions(const std::string& path,
                                                   const std::vector<std::string>& classes,
                                                   PredictionColumns columns);

}  // namespace gm
