// Predictions of a run that may not come to its end: its rows are kept, and a later run goes on after them.
#pragma once
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "data/dataset.h"
#include "data/predictions.h"
#include "engine/atomic_file.h"
#include "tools/model_file.h"

namespace gm {

/// Where the rows of a run to `out` are kept that does not end: p.partial.csv for p.csv, whatever it is
/// written as. "" for standard output.
std::string partial_file(const std::string& out);
/// Fails where there is nothing to resume, and where a new run would replace what another one has kept.
void check_partial(const std::string& out, bool resume);

/// What two models, or two sets of images in their order, differ in unless they are the same: weights and
/// everything else in the model's file; ids, positions and, where one file holds many images, its name.
std::string mark_of(const ModelFile& model);
std::string mark_of(const Dataset& data);

class KeptPredictions {
 public:
  /// What rows of one file have in common, as name and value: "model" and "images" (mark_of), options.
  using Traits = std::vector<std::pair<std::string, std::string>>;
  struct Options {
    Traits traits;
    int64_t total = 0;        // images of the whole run
    bool resume = false;      // go on after the rows of partial_file(out), which must have the same traits
    double save_every = 600;  // seconds: as much is lost by a kill or a power cut
  };
  /// As open_predictions. Throws gm::Error also where the partial file is no part of this run.
  KeptPredictions(const std::string& out, const std::vector<std::string>& classes, PredictionColumns columns,
                  Options options);

  /// Images that the file already answers for, those that could not be read included.
  int64_t first() const { return first_; }
  /// Appends rows; with them the file answers for the first `images` images. Now and then saves a copy.
  void write(const std::vector<Prediction>& rows, int64_t images);
  void finish();
  /// Ends a run that failed: its rows become the partial file. Returns what that holds and how to go on, as
  /// the end of a message; "" where there are no rows. Does not throw gm::Error.
  std::string keep();

 private:
  void read_record();
  std::string record(uintmax_t bytes) const;
  void write_record();  // of the partial file that is there now
  void save();

  std::string partial_, record_file_;  // "" on standard output
  Options options_;
  int64_t first_ = 0, images_ = 0, saved_ = 0;  // saved_: what the partial file answers for
  bool resumable_ = true;                       // its record fits it
  double next_save_ = 0;
  std::unique_ptr<PredictionWriter> writer_;
  std::optional<PendingFile> room_;  // for the record of a run that fills the disk
};

}  // namespace gm
