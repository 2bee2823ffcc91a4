// A trained model's explanations of batches of images: what gm_explain and the report of gm_eval share.
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "data/attribution_file.h"
#include "data/dataset.h"
#include "engine/batch_source.h"
#include "layers/attribution.h"
#include "tools/model_file.h"

namespace gm {

struct ExplainOptions {
  bool saliency = true, smooth = true, cam = true;
  std::string layer = "";  // of Grad-CAM; "": the last feature map
  SmoothGradConfig smooth_grad = {};
};

class Explainer {
 public:
  Explainer(Device& device, const ModelFile& model, int64_t batch, const ExplainOptions& options);

  /// Which class to explain, given an image's label (-1: unknown) and its predicted class.
  using Choice = std::function<int(int label, int predicted)>;
  /// `batch` holds the loader's pixels and the rows of `data` they came from.
  std::vector<Explanation> explain(const Dataset& data, const HostBatch& batch, const Choice& choice);

  int64_t batch() const { return network_.batch(); }
  const std::string& layer() const { return network_.layer(); }
  AttributionShape shape() const;
  /// "cbam_spatial_scale (7 x 7 x 1280), after the attention"
  std::string layer_text() const;

 private:
  ExplainOptions options_;
  Architecture architecture_;
  Attribution network_;
};

}  // namespace gm
