#include "engine/op_run.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/common/philox.h"

namespace gm {

namespace {

// Values are drawn for this many elements and repeated; a prime, so that rows of a tensor differ.
constexpr int64_t kDrawn = 1048573;

std::vector<char> draw(const TensorSpec& spec, Fill how, uint32_t stream, int64_t classes) {
  PhiloxStream rng(1, RngUse::sample, stream);
  const int64_t n = std::min(spec.shape.numel(), kDrawn);
  std::vector<char> bytes(static_cast<size_t>(n) * dtype_bytes(spec.dtype));
  auto put = [&](int64_t i, auto value) {
    std::memcpy(bytes.data() + static_cast<size_t>(i) * sizeof value, &value, sizeof value);
  };
  for (int64_t i = 0; i < n; ++i) {
    const double x = how == Fill::positive ? rng.uniform(0.5, 1.5)
                     : how == Fill::scaled ? rng.uniform(-1.7, 1.7) / std::sqrt(double(spec.shape.channels()))
                     : how == Fill::pixels ? rng.uniform(0, 255)
                                           : rng.uniform(-1.7, 1.7);
    switch (spec.dtype) {
      case DType::f32:
        put(i, static_cast<float>(x));
        break;
      case DType::bf16:
        put(i, to_bf16(static_cast<float>(x)));
        break;
      case DType::f64:
        put(i, x);
        break;
      case DType::i32:
        put(i, static_cast<int32_t>(rng.below(static_cast<uint32_t>(classes))));
        break;
      case DType::u8:
        put(i, static_cast<uint8_t>(rng.next()));
        break;
    }
  }
  return bytes;
}

}  // namespace

View OpRun::tensor(const TensorSpec& spec, Fill how, const std::vector<uint8_t>& given) {
  if (how == Fill::absent) return {nullptr, spec};
  owned_.emplace_back(device_, spec.bytes());
  const View v = owned_.back().view(0, spec);
  if (how == Fill::given) {
    GM_CHECK(given.size() == spec.bytes(), "a case gives bytes for another shape");
    device_.upload(v.data, given.data(), given.size());
    return v;
  }
  const std::vector<char> drawn = draw(spec, how, stream_++, classes_);
  device_.upload(v.data, drawn.data(), drawn.size());
  char* data = static_cast<char*>(v.data);
  for (size_t have = drawn.size(); have < spec.bytes(); have *= 2)  // repeated without the host
    device_.copy(data + have, data, std::min(have, spec.bytes() - have));
  return v;
}

OpRun::OpRun(Device& device, const OpDef& op, const OpCase& c)
    : device_(device), attrs_(c.attrs), context_(device.context()) {
  kernels_ = kernel_table(device.backend())[op_index(op)];
  Specs in;
  for (const auto& i : c.in) in.push_back(i.spec);
  classes_ = in[0].shape.rank ? in[0].shape.channels() : 2;
  for (size_t i = 0; i < in.size(); ++i) in_.push_back(tensor(in[i], c.in[i].fill, c.in[i].given));
  for (const auto& s : op.infer(c.attrs, in)) {
    out_.push_back(tensor(s, Fill::normal));
    dout_.push_back(tensor(s, Fill::normal));
  }
  if (op.saved)
    for (const auto& s : op.saved(c.attrs, in)) saved_.push_back(tensor(s, Fill::positive));
  if (op.state)
    for (const auto& s : op.state(c.attrs, in)) state_.push_back(tensor(s, Fill::positive));
  din_.resize(in.size());
  for (int d : op.differentiable) {
    if (d >= static_cast<int>(in.size()) || c.in[d].fill == Fill::absent || in[d].dtype == DType::u8)
      continue;
    TensorSpec spec = in[d];
    if (std::count(op.parameters.begin(), op.parameters.end(), d)) spec.dtype = DType::f32;
    din_[d] = {tensor(spec, Fill::normal), GradMode::overwrite};
  }
  size_t scratch = 0;
  if (op.workspace)
    for (Pass p : {Pass::forward, Pass::backward})
      scratch = std::max(scratch, op.workspace(device.backend(), p, c.attrs, in));
  owned_.emplace_back(device, scratch);
  workspace_ = owned_.back().view(0, {Shape{static_cast<int64_t>(scratch)}, DType::u8});
  const StepState step{1, 0};
  owned_.emplace_back(device, sizeof step);
  device.upload(owned_.back().data(), &step, sizeof step);
  context_.step = static_cast<const StepState*>(owned_.back().data());
}

OpCall OpRun::call(Pass pass) const {
  if (pass == Pass::forward) return {attrs_, in_, out_, saved_, state_, {}, {}, workspace_, context_};
  return {attrs_, in_, out_, saved_, state_, dout_, din_, workspace_, context_};
}

}  // namespace gm
