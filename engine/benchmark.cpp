#include "engine/benchmark.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "engine/buffer.h"
#include "kernels/common/philox.h"

namespace gm {

namespace {

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Inputs as the case asks for; denormals and NaNs would distort CPU timings, so every buffer is filled.
void fill(Device& device, const View& v, Fill how, uint32_t stream, int64_t classes,
          const std::vector<uint8_t>& given) {
  if (!v) return;
  if (how == Fill::given) {
    GM_CHECK(given.size() == v.spec.bytes(), "a case gives bytes for another shape");
    return device.upload(v.data, given.data(), given.size());
  }
  PhiloxStream rng(1, RngUse::sample, stream);
  const int64_t n = v.numel();
  std::vector<char> bytes(v.spec.bytes());
  for (int64_t i = 0; i < n; ++i) {
    const float x = static_cast<float>(how == Fill::positive ? rng.uniform(0.5, 1.5)
                                       : how == Fill::pixels ? rng.uniform(0, 255)
                                                             : rng.uniform(-1.7, 1.7));
    switch (v.dtype()) {
      case DType::f32:
        reinterpret_cast<float*>(bytes.data())[i] = x;
        break;
      case DType::bf16:
        reinterpret_cast<bf16*>(bytes.data())[i] = to_bf16(x);
        break;
      case DType::i32:
        reinterpret_cast<int32_t*>(bytes.data())[i] =
            static_cast<int32_t>(rng.below(static_cast<uint32_t>(classes)));
        break;
      case DType::u8:
        reinterpret_cast<uint8_t*>(bytes.data())[i] = static_cast<uint8_t>(rng.next());
        break;
      case DType::f64:
        reinterpret_cast<double*>(bytes.data())[i] = x;
        break;
    }
  }
  device.upload(v.data, bytes.data(), bytes.size());
}

}  // namespace

Timing time_repeated(Device& device, const std::function<void()>& run, double seconds) {
  auto once = [&] {
    const double start = now();
    run();
    device.synchronize();
    return now() - start;
  };
  for (int warm = 0; warm < 2; ++warm) once();
  std::vector<double> times;
  for (double total = 0; total < seconds || times.size() < 5; total += times.back()) times.push_back(once());
  std::sort(times.begin(), times.end());
  auto at = [&](double q) {
    return times[static_cast<size_t>(std::lround(q * static_cast<double>(times.size() - 1)))];
  };
  return {at(0.5), at(0.05), at(0.95), static_cast<int>(times.size()), {}};
}

Timing time_op(Device& device, const OpDef& op, const OpCase& c, Pass pass, double seconds) {
  Specs in;
  for (const auto& i : c.in) in.push_back(i.spec);
  const Specs out = op.infer(c.attrs, in);
  const Specs saved = op.saved ? op.saved(c.attrs, in) : Specs{};
  const Specs state = op.state ? op.state(c.attrs, in) : Specs{};
  std::vector<Buffer> owned;
  uint32_t stream = 0;
  auto tensor = [&](const TensorSpec& spec, Fill how, const std::vector<uint8_t>& given = {}) {
    if (how == Fill::absent) return View{nullptr, spec};
    owned.emplace_back(device, spec.bytes());
    const View v = owned.back().view(0, spec);
    fill(device, v, how, stream++, in[0].shape.rank ? in[0].shape.channels() : 2, given);
    return v;
  };
  std::vector<View> in_v, out_v, saved_v, state_v, dout_v;
  std::vector<GradView> din_v(in.size());
  for (size_t i = 0; i < in.size(); ++i) in_v.push_back(tensor(in[i], c.in[i].fill, c.in[i].given));
  for (const auto& s : out)
    out_v.push_back(tensor(s, Fill::normal)), dout_v.push_back(tensor(s, Fill::normal));
  for (const auto& s : saved) saved_v.push_back(tensor(s, Fill::positive));
  for (const auto& s : state) state_v.push_back(tensor(s, Fill::positive));
  for (int d : op.differentiable) {
    if (c.in[d].fill == Fill::absent || in[d].dtype == DType::u8) continue;
    TensorSpec spec = in[d];
    if (std::count(op.parameters.begin(), op.parameters.end(), d)) spec.dtype = DType::f32;
    din_v[d] = {tensor(spec, Fill::normal), GradMode::overwrite};
  }
  size_t scratch = 0;
  if (op.workspace)
    for (Pass p : {Pass::forward, Pass::backward})
      scratch = std::max(scratch, op.workspace(device.backend(), p, c.attrs, in));
  owned.emplace_back(device, scratch);
  const View workspace = owned.back().view(0, {Shape{static_cast<int64_t>(scratch)}, DType::u8});
  const StepState step{1, 0};
  owned.emplace_back(device, sizeof step);
  device.upload(owned.back().data(), &step, sizeof step);
  Context ctx = device.context();
  ctx.step = static_cast<const StepState*>(owned.back().data());

  const KernelPair kernels = kernel_table(device.backend())[op_index(op)];
  const OpCall forward{c.attrs, in_v, out_v, saved_v, state_v, {}, {}, workspace, ctx};
  const OpCall backward{c.attrs, in_v, out_v, saved_v, state_v, dout_v, din_v, workspace, ctx};
  kernels.forward(forward);  // saved tensors become what backward expects
  Timing t = pass == Pass::forward ? time_repeated(
                                         device, [&] { kernels.forward(forward); }, seconds)
                                   : time_repeated(
                                         device, [&] { kernels.backward(backward); }, seconds);
  t.cost = op.cost(pass, c.attrs, in);
  return t;
}

double copy_bandwidth(Device& device, double seconds) {
  constexpr size_t kBytes = size_t{256} << 20;
  Buffer from(device, kBytes), to(device, kBytes);
  device.fill(from.data(), 1, kBytes);
  device.fill(to.data(), 2, kBytes);
  return 2.0 * kBytes /
         time_repeated(
             device, [&] { device.copy(to.data(), from.data(), kBytes); }, seconds)
             .median;
}

std::string case_text(const OpDef& op, const OpCase& c) {
  std::string s = std::string(op.name) + " [" + c.attrs.str() + "]";
  for (const auto& in : c.in) s += " " + (in.fill == Fill::absent ? std::string("-") : in.spec.str());
  return s;
}

}  // namespace gm
