// Images through a trained network, batch by batch: what gm_infer and gm_eval have in common.
#pragma once
#include <functional>
#include <optional>
#include <vector>

#include "data/predictions.h"
#include "engine/device_feed.h"
#include "tools/model_file.h"
#include "tools/read_images.h"

namespace gm {

/// How often each image passes through the network; its probabilities are the mean over all passes.
struct Passes {
  bool symmetries = false;  // test-time augmentation: the eight rotations and reflections of the square
  int dropout = 0;          // MC dropout: so many masks; 0: none, the deterministic network
  int views() const { return symmetries ? 8 : 1; }
};
/// True where a graphics card prepares the images itself: always, but for dropout's passes.
bool on_device(const Device& device, const Passes& passes);
/// Rows of a predictor's batch that has room for at most `batch`, where no more than `total` images come.
/// Symmetric views of an image are as many rows on the device, which makes them in one step.
int64_t rows_of(const Device& device, const Passes& passes, int64_t batch, int64_t total);
/// --tta and --mc-dropout N.
void declare_passes(CLI::App& app, Passes& passes);

/// One of the eight symmetries of the square: view & 3 quarter turns after, with view & 4, a reflection.
/// pixels (N, side, side, 3).
std::vector<float> symmetric_view(const std::vector<float>& pixels, int side, int view);
/// The sample whose output of `side` px is that view of the given one's.
AugmentSample symmetric_view(const AugmentSample& sample, int side, int view);

/// Columns that the data and the passes ask for: positions where any row has one, uncertainty with dropout,
/// room for the longest id.
PredictionColumns columns_for(const Dataset& data, const Passes& passes);

class Classifier {
 public:
  /// A predictor with a feed makes no passes with dropout, and its rows (rows_of) are views.
  Classifier(Predictor& predictor, const TransformConfig& transform, const ImageReader::Options& options,
             const Passes& passes = {});

  /// One call per batch: the predictions (without labels) and the rows they belong to.
  using Sink = std::function<void(const std::vector<int64_t>& rows, std::vector<Prediction>& predictions)>;
  /// Classifies these rows in order. Logits are the network's own where there is one pass, else the logarithm
  /// of the mean probabilities. Throws gm::Error naming data and image when a score is not finite.
  void run(const std::shared_ptr<const Dataset>& data, const std::vector<int64_t>& rows, const Sink& sink);

  const ImageReader& reader() const { return reader_; }

 private:
  std::vector<Prediction> classify(const HostBatch& batch);
  void run_ahead(const std::shared_ptr<const Dataset>& data, const std::vector<int64_t>& rows,
                 const Sink& sink);
  std::optional<DeviceFeed::Results> push(const HostBatch& batch);
  int passes() const;
  void give(const Dataset& data, const std::vector<int64_t>& rows, std::vector<Prediction>& sums,
            const Sink& sink) const;

  Predictor& predictor_;
  ImageReader reader_;
  Passes passes_;
};

}  // namespace gm
