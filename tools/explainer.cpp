#include "tools/explainer.h"

#include <fmt/format.h>

#include <algorithm>

#include "engine/batch_source.h"
#include "tools/pictures/explain_picture.h"

namespace gm {

Explainer::Explainer(Device& device, const ModelFile& model, int64_t batch, const ExplainOptions& options)
    : options_(options),
      architecture_(model.architecture),
      network_(device, model.architecture, model.tensors, batch, options.layer) {}

AttributionShape Explainer::shape() const {
  const Shape& s = network_.feature_shape();
  return {architecture_.input_size, static_cast<int>(s[1]), static_cast<int>(s[2]),
          options_.saliency,        options_.smooth,        options_.cam};
}

std::string Explainer::layer_text() const {
  const Shape& s = network_.feature_shape();
  const bool attention = architecture_.attention.type != AttentionType::none && options_.layer.empty();
  return fmt::format("{} ({} x {} x {}){}", network_.layer(), s[1], s[2], s[3],
                     attention ? ", after the attention" : "");
}

std::vector<Explanation> Explainer::explain(const Dataset& data, const HostBatch& batch,
                                            const Choice& choice) {
  const int64_t classes = architecture_.classes;
  const int side = architecture_.input_size;
  const auto pixels = static_cast<size_t>(side) * side;
  const auto logits = network_.logits(batch.pixels);
  std::vector<Explanation> out(static_cast<size_t>(batch.count));
  std::vector<int> targets(static_cast<size_t>(network_.batch()), -1);
  for (int64_t i = 0; i < batch.count; ++i) {
    Explanation& e = out[i];
    const float* z = logits.data() + i * classes;
    e.id = data.id(batch.rows[i]);
    e.label = data.label(batch.rows[i]);
    e.predicted = static_cast<int>(std::max_element(z, z + classes) - z);
    e.probability = softmax(z, static_cast<int>(classes))[e.predicted];
    e.explained = targets[i] = choice(e.label, e.predicted);
    e.logit = z[e.explained];
    e.image = {side, side, std::vector<uint8_t>(pixels * 3)};
    for (size_t k = 0; k < pixels * 3; ++k)
      e.image.rgb[k] = static_cast<uint8_t>(std::clamp(batch.pixels[i * pixels * 3 + k] + 0.5f, 0.f, 255.f));
  }
  auto cut = [&](const std::vector<float>& all, std::vector<float> Explanation::*map, size_t each) {
    for (size_t i = 0; i < out.size(); ++i)
      (out[i].*map).assign(all.begin() + i * each, all.begin() + (i + 1) * each);
  };
  if (options_.saliency || options_.cam) network_.differentiate(targets);
  if (options_.saliency) cut(channel_magnitude(network_.pixel_gradient()), &Explanation::saliency, pixels);
  if (options_.cam) {
    const AttributionShape s = shape();
    cut(network_.grad_cam(), &Explanation::cam_map, static_cast<size_t>(s.cam_height) * s.cam_width);
    for (Explanation& e : out) e.cam = enlarge_map(e.cam_map.data(), s.cam_height, s.cam_width, side);
  }
  if (options_.smooth)
    cut(channel_magnitude(network_.smooth_gradient(batch.pixels, targets, batch.rows, options_.smooth_grad)),
        &Explanation::smooth, pixels);
  return out;
}

}  // namespace gm
