#include "engine/optimizer.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "kernels/adam/adam.h"
#include "kernels/common/op.h"
#include "kernels/sgd/sgd.h"

namespace gm {

double learning_rate(const ScheduleConfig& s, double lr, int64_t step, int64_t warmup, int64_t total) {
  if (step < warmup) return lr * static_cast<double>(step + 1) / static_cast<double>(warmup);
  switch (s.kind) {
    case ScheduleConfig::constant:
      return lr;
    case ScheduleConfig::keras_decay:
      return lr / (1 + s.decay * static_cast<double>(step - warmup));
    case ScheduleConfig::cosine: {
      const double t =
          std::min(1.0, static_cast<double>(step - warmup) / std::max<int64_t>(1, total - warmup));
      return lr * (s.final_fraction + (1 - s.final_fraction) * 0.5 * (1 + std::cos(std::numbers::pi * t)));
    }
  }
  return lr;
}

namespace {

constexpr size_t kNormBytes = 256;  // the norm in front of the scratch

size_t norm_bytes(Backend backend, const OptimizerConfig& config, int64_t elements) {
  if (config.clip_norm <= 0) return 0;
  const Specs in{{Shape{elements}, DType::f32}};
  return kNormBytes +
         find_op("clip_norm").workspace(backend, Pass::forward, {{"limit", config.clip_norm}}, in);
}

}  // namespace

size_t optimizer_bytes(const OptimizerConfig& config, const ParameterTable& table) {
  const size_t buffers = (config.kind == OptimizerConfig::sgd ? 1 : 2) + (config.average > 0);
  return table.trainable_elements() * (buffers * sizeof(float) + sizeof(uint8_t)) +
         Optimizer::kHyper * sizeof(float) + norm_bytes(Backend::cpu, config, table.trainable_elements());
}

Optimizer::Optimizer(Device& device, const OptimizerConfig& config, const ParameterTable& table,
                     Weights& weights)
    : device_(device),
      config_(config),
      weights_(weights),
      elements_(table.trainable_elements()),
      moment1_(device, elements_ * sizeof(float)),
      moment2_(device, config.kind == OptimizerConfig::sgd ? 0 : elements_ * sizeof(float)),
      mask_(device, elements_),
      hyper_(device, sizeof(Hyper)),
      average_(device, config.average > 0 ? elements_ * sizeof(float) : 0),
      norm_(device, norm_bytes(device.backend(), config, elements_)) {
  // Frozen parameters stay bit for bit because their gradients, moments and decay are zero: 0 / (0 +
  // epsilon).
  if (config.kind != OptimizerConfig::sgd && config.epsilon == 0 && table.frozen_count() > 0)
    fail("optimizer.epsilon must be positive when parameters are frozen");
  for (Buffer* b : {&moment1_, &moment2_})
    if (b->bytes()) device.fill(b->data(), 0, b->bytes());
  std::vector<uint8_t> mask(elements_, 0);
  for (const Parameter& p : table)
    if (p.trainable && p.decay && !p.frozen)
      std::fill_n(mask.begin() + p.offset, p.shape.numel(), uint8_t{1});
  mask_.upload(mask);
}

namespace {
constexpr int kOpHyper = 8, kAverageDecay = kOpHyper;  // of adam and sgd; behind them
static_assert(kAdamDecay + 1 == kOpHyper && kSgdDecay + 1 == kOpHyper &&
              kAverageDecay + 1 == Optimizer::kHyper);
static_assert(int{kSgdLr} == kAdamLr && int{kSgdScale} == kAdamScale && int{kSgdDecay} == kAdamDecay);
}  // namespace

Optimizer::Hyper Optimizer::hyper(double lr, int64_t step) const {
  const double t = static_cast<double>(step + 1);
  Hyper h{};
  auto set = [&h](int at, double value) { h[static_cast<size_t>(at)] = static_cast<float>(value); };
  set(kAdamLr, lr);
  set(kAdamScale, 1.0 / static_cast<double>(config_.accumulate));
  set(kAdamDecay, config_.weight_decay);
  if (config_.kind == OptimizerConfig::sgd) {
    set(kSgdMomentum, config_.momentum);
  } else {
    set(kAdamBeta1, config_.beta1);
    set(kAdamBeta2, config_.beta2);
    set(kAdamEps, config_.epsilon);
    set(kAdamBc1, 1 - std::pow(config_.beta1, t));
    set(kAdamBc2, 1 - std::pow(config_.beta2, t));
  }
  set(kAverageDecay, std::min(config_.average, t / (9 + t)));
  return h;
}

void Optimizer::update(double lr, int64_t step) {
  const Hyper values = hyper(lr, step);
  device_.upload(hyper_.data(), values.data(), sizeof values);
  apply(hyper_.view(0, {Shape{kHyper}, DType::f32}));
}

void Optimizer::apply(const View& hyper) {
  const bool sgd = config_.kind == OptimizerConfig::sgd;
  const TensorSpec flat{Shape{elements_}, DType::f32};
  const bool half = weights_.bf16_copies().bytes() > 0;
  const Context ctx = device_.context();
  auto run = [&](const char* name, const Attrs& attrs, std::span<const View> in, std::span<const View> out,
                 std::span<const View> state, const View& workspace = {}) {
    kernel_table(device_.backend())[op_index(find_op(name))].forward(
        OpCall{attrs, in, out, {}, state, {}, {}, workspace, ctx});
  };
  const View gradient = weights_.gradients().view(0, flat);
  if (config_.clip_norm > 0) {
    const View none{nullptr, flat}, norm = norm_.view(0, {Shape{1}, DType::f32});
    const auto scratch = static_cast<int64_t>(norm_.bytes() - kNormBytes);
    const double limit = config_.clip_norm * static_cast<double>(config_.accumulate);  // of the sum
    run("clip_norm", {{"limit", limit}}, {&none, 1}, {&norm, 1}, {&gradient, 1},
        norm_.view(kNormBytes, {Shape{scratch}, DType::u8}));
  }
  const View in[] = {gradient, View{hyper.data, {Shape{kOpHyper}, DType::f32}},
                     config_.weight_decay != 0 ? mask_.view(0, {Shape{elements_}, DType::u8})
                                               : View{nullptr, {Shape{elements_}, DType::u8}}};
  std::vector<View> out, state{weights_.master().view(0, flat), moment1_.view(0, flat)};
  if (!sgd) state.push_back(moment2_.view(0, flat));
  if (half) out.push_back(weights_.bf16_copies().view(0, {Shape{elements_}, DType::bf16}));
  Attrs attrs{{"half_copy", half ? 1 : 0}};
  if (sgd)
    attrs.set("nesterov", config_.nesterov);
  else
    attrs.set("epsilon_hat", config_.epsilon_hat).set("decoupled", config_.kind == OptimizerConfig::adamw);
  run(sgd ? "sgd" : "adam", attrs, in, out, state);
  if (!average_.bytes()) return;
  const View average = average_.view(0, flat);
  const View moving[] = {state[0], View{hyper.as<float>() + kAverageDecay, {Shape{1}, DType::f32}}};
  run("moving_average", {}, moving, {}, {&average, 1});
}

void Optimizer::start_average() {
  if (average_.bytes()) device_.copy(average_.data(), weights_.master().data(), average_.bytes());
}

void Optimizer::with_average(const std::function<void()>& use) {
  if (!average_.bytes()) return use();
  std::swap(weights_.master(), average_);  // kernels of a session have pointers of their own
  try {
    use();
  } catch (...) {
    std::swap(weights_.master(), average_);
    throw;
  }
  std::swap(weights_.master(), average_);
}

}  // namespace gm
