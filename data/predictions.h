// Predictions on their way to disk: written as they come, never collected in memory.
#pragma once
#include <limits>
#include <memory>
#include <string>
#include <vector>

namespace gm {

/// One classified image.
struct Prediction {
  std::string id;
  std::vector<double> probabilities;                               // per class, sums to 1
  std::vector<float> logits;                                       // per class
  int label = -1;                                                  // true class, where it is known
  double ra = std::numeric_limits<double>::quiet_NaN(), dec = ra;  // degrees (J2000), where known
  // Of several passes through a network with dropout (MC dropout), in nats.
  double entropy = 0;             // of the mean probabilities
  double mutual_information = 0;  // what of it comes from the passes' disagreement, not from each one's doubt
};

/// The class with the highest probability; the first of equals.
int predicted_class(const Prediction& p);

/// Columns besides id, class and probabilities.
struct PredictionColumns {
  bool logits = false, labels = false, sky = false, uncertainty = false;
  size_t id_bytes = 64;  // FITS only: room for an id
};

class PredictionWriter {
 public:
  virtual ~PredictionWriter() = default;
  virtual void write(const std::vector<Prediction>& rows) = 0;
  /// Gives the file its final name. Without it nothing under that name is touched.
  virtual void finish() = 0;
  /// Not on standard output: gives the rows of all whole calls of write() the name `path` instead, in the
  /// same folder. Throws gm::Error where they are no file now: HDF5 and FITS after a write() that failed.
  virtual void keep(const std::string& path) = 0;
  /// Not on standard output: puts all rows on disk; returns the name under which they lie there for now, as a
  /// whole file.
  virtual const std::string& flush() = 0;
};

/// By the extension of `path`: CSV (columns id_str, [label,] class, p_<class>... and, if asked for,
/// z_<class>..., ra, dec, entropy, mutual_information; label and class are names, the label of an unlabelled
/// row is empty, and so is an unknown position), .fits (the same columns, see predictions_formats.h), or
/// .h5/.hdf5 (datasets id_str (N), class (N) int32, probabilities (N, C) f32 and, if asked for, label (N)
/// int32, logits (N, C) f32, ra, dec (N) f64, NaN where unknown, entropy, mutual_information (N) f32;
/// attribute class_names). "-" is CSV on standard output. Throws gm::Error when it cannot be written.
/// `begun`: a file of the same extension, classes and columns, with a copy of whose rows this one begins.
std::unique_ptr<PredictionWriter> open_predictions(const std::string& path,
                                                   const std::vector<std::string>& classes,
                                                   const PredictionColumns& columns,
                                                   const std::string& begun = "");

}  // namespace gm
