#include "engine/parameters.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "kernels/common/ceil_div.h"
#include "kernels/common/philox.h"

namespace gm {

int ParameterTable::add(const std::string& name, const Shape& shape, const Initializer& init, bool trainable,
                        bool decay) {
  if (auto it = index_.find(name); it != index_.end()) {
    GM_CHECK(items_[it->second].shape == shape, "parameter '" + name + "' declared with two shapes");
    return it->second;
  }
  Parameter p{name, shape, init, trainable, decay, false, 0};
  int64_t& elements = trainable ? trainable_elements_ : state_elements_;
  p.offset = elements;
  elements += round_up(shape.numel(), 64);
  items_.push_back(p);
  return index_[name] = size() - 1;
}

int ParameterTable::find(const std::string& name) const {
  auto it = index_.find(name);
  return it == index_.end() ? -1 : it->second;
}

int64_t ParameterTable::trainable_count() const {
  int64_t n = 0;
  for (const auto& p : items_) n += p.trainable ? p.shape.numel() : 0;
  return n;
}

int64_t ParameterTable::frozen_count() const {
  int64_t n = 0;
  for (const auto& p : items_) n += p.frozen ? p.shape.numel() : 0;
  return n;
}

int64_t ParameterTable::total_count() const {
  int64_t n = 0;
  for (const auto& p : items_) n += p.shape.numel();
  return n;
}

size_t weight_bytes(const ParameterTable& table, bool bf16_copies) {
  return table.trainable_elements() * (sizeof(float) + (bf16_copies ? sizeof(bf16) : 0)) +
         table.state_elements() * sizeof(float);
}

Weights::Weights(Device& device, const ParameterTable& table, bool bf16_copies, bool training)
    : device_(device),
      master_(device, table.trainable_elements() * sizeof(float)),
      bf16_(device, bf16_copies ? table.trainable_elements() * sizeof(bf16) : 0),
      gradients_(device, training ? table.trainable_elements() * sizeof(float) : 0),
      state_(device, table.state_elements() * sizeof(float)) {
  for (Buffer* b : {&master_, &bf16_, &gradients_, &state_})
    if (b->bytes()) device.fill(b->data(), 0, b->bytes());
}

void Weights::initialize(const ParameterTable& table, uint64_t seed) {
  for (int i = 0; i < table.size(); ++i) {
    const Parameter& p = table[i];
    std::vector<float> v(p.shape.numel());
    PhiloxStream rng(seed, RngUse::init, static_cast<uint32_t>(i));
    const double variance = p.init.scale / std::max(1.0, p.init.fan);
    for (float& x : v) switch (p.init.kind) {
        case Initializer::zeros:
          x = 0;
          break;
        case Initializer::ones:
          x = 1;
          break;
        case Initializer::uniform: {
          const double limit = std::sqrt(3 * variance);
          x = static_cast<float>(rng.uniform(-limit, limit));
          break;
        }
        case Initializer::truncated_normal: {
          // Keras: normal cut at two sigma and widened so that the variance is the one asked for.
          const double sigma = std::sqrt(variance) / 0.87962566103423978;
          double z;
          do {
            const double u = 1 - rng.uniform(), w = rng.uniform();
            z = std::sqrt(-2 * std::log(u)) * std::cos(2 * std::numbers::pi * w);
          } while (std::abs(z) > 2);
          x = static_cast<float>(sigma * z);
          break;
        }
      }
    upload(p, v);
  }
  refresh_bf16();
}

void Weights::refresh_bf16() {
  constexpr size_t kPiece = 1u << 18;  // elements on the host at a time
  std::vector<float> master(kPiece);
  std::vector<bf16> rounded(kPiece);
  for (size_t at = 0, all = bf16_.bytes() / sizeof(bf16); at < all; at += kPiece) {
    const size_t n = std::min(kPiece, all - at);
    device_.download(master.data(), static_cast<const float*>(master_.data()) + at, n * sizeof(float));
    for (size_t i = 0; i < n; ++i) rounded[i] = to_bf16(master[i]);
    device_.upload(static_cast<bf16*>(bf16_.data()) + at, rounded.data(), n * sizeof(bf16));
  }
}

std::vector<float> Weights::download(const Parameter& p) const {
  std::vector<float> v(p.shape.numel());
  device_.download(v.data(), value(p, DType::f32).data, v.size() * sizeof(float));
  return v;
}

void Weights::upload(const Parameter& p, const std::vector<float>& values) {
  GM_CHECK(static_cast<int64_t>(values.size()) == p.shape.numel(),
           "wrong number of values for '" + p.name + "'");
  device_.upload(value(p, DType::f32).data, values.data(), values.size() * sizeof(float));
}

View Weights::value(const Parameter& p, DType dtype) const {
  const Buffer& buffer = !p.trainable ? state_ : dtype == DType::bf16 ? bf16_ : master_;
  return buffer.view(p.offset * dtype_bytes(dtype), {p.shape, dtype});
}

View Weights::gradient(const Parameter& p) const {
  return gradients_.view(p.offset * sizeof(float), {p.shape, DType::f32});
}

}  // namespace gm
