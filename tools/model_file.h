// A trained model on disk: weights plus everything inference needs, in one safetensors file.
#pragma once
#include <memory>

#include "data/transform.h"
#include "engine/device_feed.h"
#include "engine/image_pool.h"
#include "engine/safetensors.h"
#include "engine/session.h"
#include "layers/network.h"
#include "layers/rewrites.h"

namespace gm {

struct ModelFile {
  std::string path;
  Architecture architecture;
  TransformConfig transform;
  TensorFile tensors;
};

/// DIR (a run folder: its best.safetensors, else last.safetensors) or a weight file. Throws gm::Error naming
/// the file when it is not a model of this project.
ModelFile read_model(const std::string& path);

/// Padding, batch-norm epsilon and input scaling of a model whose weights are taken over, into a
/// configuration: weights fit only the network they were trained in. Keys given with --set stay.
void adopt_model_conventions(YAML::Node config, const Architecture& from,
                             const std::vector<std::string>& sets);

/// Takes over every parameter, except that predictions and the hidden layer keep their initial values when
/// one of them is absent or of another shape (another number of classes), or `classes` are not the model's by
/// name and order. Returns a line that says what was done; throws gm::Error naming file and tensor for
/// anything else that is missing or of another shape.
std::string start_from(const ModelFile& model, const std::vector<std::string>& classes,
                       const ParameterTable& table, Weights& weights);

/// Metadata that read_model needs, for writing.
std::map<std::string, std::string> model_metadata(const Architecture& a, const YAML::Node& augment);

struct PredictorOptions {
  bool bf16 = false;
  bool sampling = false;  // for sample_logits(); throws gm::Error for a network without dropout
  uint64_t seed = 0;      // of its masks
  /// The device resizes and scales 8-bit images: classify with feed(), not with logits().
  bool images = false;
};

/// A ready-to-run inference network: batch norm folded, weights on the device.
class Predictor {
 public:
  Predictor(Device& device, const ModelFile& model, int64_t batch, const PredictorOptions& options = {});
  int64_t batch() const { return batch_; }
  const Architecture& architecture() const { return architecture_; }
  /// pixels (batch, size, size, 3), 0..255 -> logits (batch, classes)
  const std::vector<float>& logits(const std::vector<float>& pixels);
  const std::vector<float>& last_logits() const { return logits_; }
  /// After logits(): the same images under dropout behind the pooling (Gal & Ghahramani 2016), masks
  /// `sample`. Only what follows the first dropout runs again. Masks depend on seed and sample; all images
  /// have the same.
  const std::vector<float>& sample_logits(int64_t sample);
  /// With PredictorOptions::images: takes batches that carry images, its one result are the logits. Null
  /// without.
  DeviceFeed* feed() { return feed_.get(); }
  const ImagePool* images() const { return images_.get(); }
  size_t bytes() const { return weights_->bytes() + session_->bytes(); }

 private:
  int64_t batch_;
  Architecture architecture_;
  ValueId pixels_, output_;
  size_t first_sampled_ = 0;  // step of the plan
  std::unique_ptr<FoldedNetwork> folded_;
  std::unique_ptr<Weights> weights_;
  std::unique_ptr<Session> session_;
  std::unique_ptr<RepeatedWork> forward_;
  std::unique_ptr<ImagePool> images_;
  std::unique_ptr<DeviceFeed> feed_;
  std::vector<float> logits_;
};

/// softmax of one row of `classes` logits, in double.
std::vector<double> softmax(const float* logits, int classes);

}  // namespace gm
