#include "layers/attribution.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "engine/weight_file.h"
#include "kernels/common/error.h"
#include "kernels/common/philox.h"
#include "layers/config.h"

namespace gm {

namespace {

// Box-Muller, both halves used.
class Normal {
 public:
  Normal(uint64_t seed, int64_t row, int sample)
      : rng_(seed, RngUse::sample, static_cast<uint32_t>(row), static_cast<uint32_t>(sample)) {}
  double next() {
    if (kept_) {
      kept_ = false;
      return second_;
    }
    const double radius = std::sqrt(-2 * std::log(1 - rng_.uniform())),
                 angle = 2 * std::numbers::pi * rng_.uniform();
    second_ = radius * std::sin(angle);
    kept_ = true;
    return radius * std::cos(angle);
  }

 private:
  PhiloxStream rng_;
  double second_ = 0;
  bool kept_ = false;
};

// Layers with a feature map (N, h, w, C) for output, in the order in which they run.
std::vector<std::string> feature_layers(const Graph& graph) {
  std::vector<std::string> names;
  for (const Node& n : graph.nodes())
    if (graph.spec(n.out[0]).shape.rank == 4) names.push_back(n.name);
  return names;
}

std::string last_feature_layer(const Graph& graph) {
  const Node& pool = graph.nodes()[graph.value(graph.output_of("avg_pool")).producer];
  return graph.nodes()[graph.value(pool.in[0]).producer].name;
}

}  // namespace

Attribution::Attribution(Device& device, const Architecture& a, const TensorFile& weights, int64_t batch,
                         const std::string& layer)
    : batch_(batch), device_(device), layer_(layer) {
  graph_ = std::make_unique<NetworkGraph>(build_network(a, table_, {.batch = batch, .loss = false}));
  Graph& g = graph_->graph;
  const auto layers = feature_layers(g);
  if (layer_.empty()) layer_ = last_feature_layer(g);
  if (std::find(layers.begin(), layers.end(), layer_) == layers.end()) {
    std::string list;
    for (const auto& name : by_nearness(layer_, layers)) list += (list.empty() ? "" : ", ") + name;
    fail("no layer '" + layer_ + "' with a feature map; there are " + list);
  }
  feature_ = g.output_of(layer_);
  // Gradients are wanted of pixels and feature maps, never of parameters.
  for (int i = 0; i < table_.size(); ++i) table_[i].frozen = true;
  g.values()[graph_->pixels].wants_gradient = true;
  weights_ = std::make_unique<Weights>(device, table_, false, false);
  load_weights(weights, table_, *weights_);
  session_ = std::make_unique<Session>(device, g, *weights_,
                                       PlanOptions{.training = true,
                                                   .loss = graph_->logits,
                                                   .keep = {graph_->logits, feature_},
                                                   .keep_gradient = {feature_}});
}

std::vector<float> Attribution::logits(const std::vector<float>& pixels) {
  session_->upload(graph_->pixels, pixels.data());
  session_->forward();
  return session_->download(graph_->logits);
}

void Attribution::differentiate(const std::vector<int>& classes) {
  const View seed = session_->gradient(graph_->logits);
  std::vector<float> one_hot(static_cast<size_t>(seed.numel()), 0.f);
  const int64_t width = seed.shape()[1];
  GM_CHECK(static_cast<int64_t>(classes.size()) == batch_, "one class per image of the batch");
  for (int64_t i = 0; i < batch_; ++i)
    if (classes[i] >= 0) {
      GM_CHECK(classes[i] < width, "class " + std::to_string(classes[i]) + " is not one of the network's");
      one_hot[i * width + classes[i]] = 1;
    }
  device_.upload(seed.data, one_hot.data(), one_hot.size() * sizeof(float));
  session_->backward();
}

std::vector<float> Attribution::pixel_gradient() const {
  return to_host(device_, session_->gradient(graph_->pixels));
}

std::vector<float> Attribution::grad_cam() const {
  const auto map = session_->download(feature_), slope = to_host(device_, session_->gradient(feature_));
  const Shape& s = feature_shape();
  const int64_t pixels = s[1] * s[2], channels = s[3];
  std::vector<float> cam(static_cast<size_t>(batch_ * pixels));
  std::vector<double> weight(channels);
  for (int64_t n = 0; n < batch_; ++n) {
    const float *a = map.data() + n * pixels * channels, *d = slope.data() + n * pixels * channels;
    std::fill(weight.begin(), weight.end(), 0);
    for (int64_t p = 0; p < pixels; ++p)
      for (int64_t k = 0; k < channels; ++k) weight[k] += d[p * channels + k] / static_cast<double>(pixels);
    for (int64_t p = 0; p < pixels; ++p) {
      double sum = 0;
      for (int64_t k = 0; k < channels; ++k) sum += weight[k] * a[p * channels + k];
      cam[n * pixels + p] = static_cast<float>(std::max(0.0, sum));
    }
  }
  return cam;
}

std::vector<float> Attribution::smooth_gradient(const std::vector<float>& pixels,
                                                const std::vector<int>& classes,
                                                const std::vector<int64_t>& rows,
                                                const SmoothGradConfig& config) {
  GM_CHECK(config.samples >= 1 && config.noise >= 0, "SmoothGrad: samples >= 1 and noise >= 0");
  const int64_t each = static_cast<int64_t>(pixels.size()) / batch_;
  std::vector<double> sigma(batch_);
  for (int64_t n = 0; n < batch_; ++n) {
    const auto [low, high] = std::minmax_element(pixels.begin() + n * each, pixels.begin() + (n + 1) * each);
    sigma[n] = config.noise * static_cast<double>(*high - *low);
  }
  std::vector<double> sum(pixels.size(), 0);
  std::vector<float> noisy(pixels.size());
  for (int sample = 0; sample < config.samples; ++sample) {
    for (int64_t n = 0; n < batch_; ++n) {
      Normal normal(config.seed, rows[n], sample);
      for (int64_t i = n * each; i < (n + 1) * each; ++i)
        noisy[i] = static_cast<float>(pixels[i] + sigma[n] * normal.next());
    }
    logits(noisy);
    differentiate(classes);
    const auto gradient = pixel_gradient();
    for (size_t i = 0; i < sum.size(); ++i) sum[i] += gradient[i];
  }
  std::vector<float> mean(sum.size());
  for (size_t i = 0; i < sum.size(); ++i) mean[i] = static_cast<float>(sum[i] / config.samples);
  return mean;
}

std::vector<float> channel_magnitude(const std::vector<float>& gradient) {
  std::vector<float> map(gradient.size() / 3);
  for (size_t i = 0; i < map.size(); ++i)
    map[i] =
        std::max({std::abs(gradient[3 * i]), std::abs(gradient[3 * i + 1]), std::abs(gradient[3 * i + 2])});
  return map;
}

}  // namespace gm
