// What a trained network looks at: gradients of class scores with respect to pixels and to feature maps.
//   saliency    max over channels of |d z_c / d pixel|             Simonyan et al. 2013; S1 Fig. 8, left
//   SmoothGrad  the same of the mean gradient of noisy copies      Smilkov et al. 2017
//               of the image
//   Grad-CAM    relu(sum_k a_k A_k),                               Selvaraju et al. 2017; S1 Fig. 8, right
//               a_k = mean over pixels of d z_c / d A_k
// z_c is the logit of class c, before the softmax; the network is in inference mode (running statistics, no
// dropout). Pixels are 0..255, so saliency is in logits per grey level.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "engine/safetensors.h"
#include "engine/session.h"
#include "layers/network.h"

namespace gm {

struct SmoothGradConfig {
  int samples = 50;
  double noise = 0.15;  // standard deviation as a share of the image's own range of values
  uint64_t seed = 0;
};

/// The unfused inference network, differentiated with respect to its input: f32, any device.
class Attribution {
 public:
  /// layer: whose feature map Grad-CAM weighs; "": the one that global pooling reads, behind the attention
  /// where there is one (CBAM: cbam_spatial_scale). Throws gm::Error listing the layers there are, nearest
  /// first, when there is none of that name, and when `weights` does not fit.
  Attribution(Device& device, const Architecture& a, const TensorFile& weights, int64_t batch,
              const std::string& layer = "");

  int64_t batch() const { return batch_; }
  const std::string& layer() const { return layer_; }
  /// (N, h, w, C)
  const Shape& feature_shape() const { return graph_->graph.spec(feature_).shape; }

  /// pixels (N, S, S, 3) -> logits (N, classes)
  std::vector<float> logits(const std::vector<float>& pixels);
  /// After logits(): the gradient of one logit per image. classes (N); -1 leaves an image out (zeros).
  void differentiate(const std::vector<int>& classes);
  /// After differentiate(): d z / d pixel (N, S, S, 3)
  std::vector<float> pixel_gradient() const;
  /// After differentiate(): (N, h, w), not negative
  std::vector<float> grad_cam() const;
  /// Mean of pixel_gradient() over noisy copies (N, S, S, 3). Noise depends on (seed, row, sample) alone:
  /// `rows` (N) tells the images apart, whatever batch they are in.
  std::vector<float> smooth_gradient(const std::vector<float>& pixels, const std::vector<int>& classes,
                                     const std::vector<int64_t>& rows, const SmoothGradConfig& config);

 private:
  int64_t batch_;
  Device& device_;
  std::string layer_;
  ParameterTable table_;
  std::unique_ptr<NetworkGraph> graph_;
  ValueId feature_;
  std::unique_ptr<Weights> weights_;
  std::unique_ptr<Session> session_;
};

/// (..., 3) -> (...): the largest magnitude of the three.
std::vector<float> channel_magnitude(const std::vector<float>& gradient);

}  // namespace gm
