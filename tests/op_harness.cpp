#include "tests/op_harness.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>

#include "engine/buffer.h"
#include "kernels/common/philox.h"

namespace gm::test {

namespace {

constexpr size_t kGuard = 256;
constexpr unsigned char kGuardByte = 0xA5;

uint64_t hash(const std::string& s) {
  uint64_t h = 1469598103934665603ull;  // FNV-1a
  for (unsigned char c : s) h = (h ^ c) * 1099511628211ull;
  return h;
}

double rounded(double v, DType t) {
  switch (t) {
    case DType::f32:
      return static_cast<float>(v);
    case DType::bf16:
      return to_float(to_bf16(static_cast<float>(v)));
    default:
      return v;
  }
}

bool is_float(DType t) { return t == DType::f32 || t == DType::bf16 || t == DType::f64; }

std::vector<char> encode(const std::vector<double>& values, DType t) {
  std::vector<char> bytes(values.size() * dtype_bytes(t));
  for (size_t i = 0; i < values.size(); ++i) {
    char* p = bytes.data() + i * dtype_bytes(t);
    const float f = static_cast<float>(values[i]);
    const bf16 b = to_bf16(f);
    const int32_t n = static_cast<int32_t>(values[i]);
    const uint8_t u = static_cast<uint8_t>(values[i]);
    switch (t) {
      case DType::f64:
        std::memcpy(p, &values[i], 8);
        break;
      case DType::f32:
        std::memcpy(p, &f, 4);
        break;
      case DType::bf16:
        std::memcpy(p, &b, 2);
        break;
      case DType::i32:
        std::memcpy(p, &n, 4);
        break;
      case DType::u8:
        std::memcpy(p, &u, 1);
        break;
    }
  }
  return bytes;
}

std::vector<double> decode(const char* bytes, size_t count, DType t) {
  std::vector<double> values(count);
  for (size_t i = 0; i < count; ++i) {
    const char* p = bytes + i * dtype_bytes(t);
    switch (t) {
      case DType::f64:
        std::memcpy(&values[i], p, 8);
        break;
      case DType::f32: {
        float f;
        std::memcpy(&f, p, 4);
        values[i] = f;
        break;
      }
      case DType::bf16: {
        bf16 b;
        std::memcpy(&b, p, 2);
        values[i] = to_float(b);
        break;
      }
      case DType::i32: {
        int32_t n;
        std::memcpy(&n, p, 4);
        values[i] = n;
        break;
      }
      case DType::u8:
        values[i] = static_cast<unsigned char>(*p);
        break;
    }
  }
  return values;
}

// A tensor on the device between two guard bands; everything starts as 0xFF bytes (NaN) unless given values.
class Guarded {
 public:
  Guarded(Device& d, const TensorSpec& spec, const std::vector<double>* values, size_t raw_bytes = 0)
      : spec_(spec), bytes_(raw_bytes ? raw_bytes : spec.bytes()), buffer_(d, bytes_ + 2 * kGuard) {
    std::vector<char> host(buffer_.bytes(), static_cast<char>(kGuardByte));
    std::memset(host.data() + kGuard, 0xFF, bytes_);
    if (values) {
      auto data = encode(*values, spec.dtype);
      std::memcpy(host.data() + kGuard, data.data(), data.size());
    }
    d.upload(buffer_.data(), host.data(), host.size());
  }
  View view() const { return View{static_cast<char*>(buffer_.data()) + kGuard, spec_}; }
  std::vector<double> read(const std::string& what) const {
    auto host = buffer_.download<char>();
    for (size_t i = 0; i < kGuard; ++i)
      if (static_cast<unsigned char>(host[i]) != kGuardByte ||
          static_cast<unsigned char>(host[kGuard + bytes_ + i]) != kGuardByte) {
        ADD_FAILURE() << what << ": wrote outside its buffer";
        break;
      }
    return decode(host.data() + kGuard, static_cast<size_t>(spec_.shape.numel()), spec_.dtype);
  }

 private:
  TensorSpec spec_;
  size_t bytes_;
  Buffer buffer_;
};

Specs as_double(Specs specs) {
  for (auto& s : specs)
    if (s.dtype == DType::f32 || s.dtype == DType::bf16) s.dtype = DType::f64;
  return specs;
}

Result execute(Device& device, Backend backend, const OpDef& op, const OpCase& c, const CaseData& data,
               const Specs& in_specs, const Specs& out_specs, const Specs& saved_specs,
               const Specs& state_specs, bool accumulate, const std::string& label, int only = -1) {
  Context ctx = device.context();
  ctx.backend = backend;
  // The sanitizers' run: kernels of cuDNN and cuBLAS are not ours to check.
  if (std::getenv("GM_OWN_KERNELS")) ctx.libraries = nullptr;
  const StepState step{data.seed, 3};
  Buffer step_buffer(device, sizeof step);
  device.upload(step_buffer.data(), &step, sizeof step);
  ctx.step = static_cast<const StepState*>(step_buffer.data());

  const bool differentiable = !op.differentiable.empty();
  const KernelPair kernels = kernel_table(backend)[op_index(op)];
  const bool is_ref = backend == Backend::ref;

  auto guard_all = [&](const Specs& specs, const std::vector<std::vector<double>>* values) {
    std::vector<Guarded> g;
    g.reserve(specs.size());
    for (size_t i = 0; i < specs.size(); ++i)
      g.emplace_back(device, specs[i], values && !(*values)[i].empty() ? &(*values)[i] : nullptr);
    return g;
  };
  auto views = [](const std::vector<Guarded>& g) {
    std::vector<View> v;
    for (const auto& x : g) v.push_back(x.view());
    return v;
  };

  auto in = guard_all(in_specs, &data.in_values);
  auto out = guard_all(out_specs, nullptr);
  auto saved = guard_all(saved_specs, nullptr);
  auto state = guard_all(state_specs, &data.state_values);
  auto dout = guard_all(out_specs, &data.dout_values);
  std::vector<View> in_v = views(in), out_v = views(out), saved_v = views(saved), state_v = views(state),
                    dout_v = views(dout);
  for (size_t i = 0; i < c.in.size(); ++i)
    if (c.in[i].fill == Fill::absent) in_v[i] = View{nullptr, in_specs[i]};
  for (size_t i = 0; i < dout_v.size(); ++i)
    if (data.dout_values[i].empty()) dout_v[i].data = nullptr;

  auto scratch = [&](Pass pass) {
    const size_t bytes = !is_ref && op.workspace ? op.workspace(backend, pass, c.attrs, data.in) : 0;
    return Guarded(device, TensorSpec{Shape{static_cast<int64_t>(bytes)}, DType::u8}, nullptr, bytes);
  };
  Result r;
  {
    Guarded workspace = scratch(Pass::forward);
    kernels.forward(OpCall{c.attrs, in_v, out_v, saved_v, state_v, {}, {}, workspace.view(), ctx});
    device.synchronize();
    workspace.read(label + " forward workspace");
  }
  for (size_t i = 0; i < out.size(); ++i) r.out.push_back(out[i].read(label + " out" + std::to_string(i)));
  for (size_t i = 0; i < saved.size(); ++i)
    r.saved.push_back(saved[i].read(label + " saved" + std::to_string(i)));
  for (size_t i = 0; i < state.size(); ++i)
    r.state.push_back(state[i].read(label + " state" + std::to_string(i)));
  for (size_t i = 0; i < in.size(); ++i) {
    auto after = in[i].read(label + " in" + std::to_string(i));
    for (size_t k = 0; k < after.size(); ++k)
      if (after[k] != data.in_values[i][k] && !std::isnan(data.in_values[i][k])) {
        ADD_FAILURE() << label << ": forward changed its input " << i;
        break;
      }
  }

  // Nothing saved, as in inference and in a pass that will be repeated: the same bits.
  if (!saved.empty() && !is_ref && !accumulate) {
    auto out_again = guard_all(out_specs, nullptr), state_again = guard_all(state_specs, &data.state_values);
    std::vector<View> none;
    for (const auto& spec : saved_specs) none.push_back({nullptr, spec});
    Guarded workspace = scratch(Pass::forward);
    kernels.forward(
        OpCall{c.attrs, in_v, views(out_again), none, views(state_again), {}, {}, workspace.view(), ctx});
    device.synchronize();
    for (size_t i = 0; i < out.size(); ++i)
      EXPECT_EQ(out_again[i].read(label + " out" + std::to_string(i) + ", nothing saved"), r.out[i]) << label;
    for (size_t i = 0; i < state.size(); ++i)
      EXPECT_EQ(state_again[i].read(label + " state" + std::to_string(i) + ", nothing saved"), r.state[i])
          << label;
  }

  if (differentiable) {
    // Only what the op declares to read in backward is handed over: an undeclared read hits a null pointer.
    const BackwardReads reads = op.backward_reads ? op.backward_reads(c.attrs) : BackwardReads{};
    std::vector<View> in_b = in_v, out_b = out_v;
    for (size_t i = 0; i < in_b.size(); ++i)
      if (std::find(reads.in.begin(), reads.in.end(), int(i)) == reads.in.end()) in_b[i].data = nullptr;
    for (size_t i = 0; i < out_b.size(); ++i)
      if (std::find(reads.out.begin(), reads.out.end(), int(i)) == reads.out.end()) out_b[i].data = nullptr;
    std::vector<Guarded> din;
    std::vector<GradView> din_v(in_specs.size());
    std::vector<int> slot(in_specs.size(), -1);
    din.reserve(in_specs.size());
    for (int i : op.differentiable) {
      const bool given = i < static_cast<int>(c.in.size()) && c.in[i].fill != Fill::absent;
      if (!given || !is_float(in_specs[i].dtype) || (only >= 0 && i != only)) continue;
      TensorSpec spec = in_specs[i];
      if (!is_ref && std::count(op.parameters.begin(), op.parameters.end(), i)) spec.dtype = DType::f32;
      slot[i] = static_cast<int>(din.size());
      din.emplace_back(device, spec, accumulate ? &data.din_start[i] : nullptr);
      din_v[i] = GradView{din.back().view(), accumulate ? GradMode::accumulate : GradMode::overwrite};
    }
    Guarded workspace = scratch(Pass::backward);
    kernels.backward(OpCall{c.attrs, in_b, out_b, saved_v, state_v, dout_v, din_v, workspace.view(), ctx});
    device.synchronize();
    workspace.read(label + " backward workspace");
    r.din.resize(in_specs.size());
    for (size_t i = 0; i < in_specs.size(); ++i)
      if (slot[i] >= 0) r.din[i] = din[slot[i]].read(label + " din" + std::to_string(i));
  }
  return r;
}

}  // namespace

std::string case_name(const OpDef& op, const OpCase& c) {
  return case_text(op, c) + (c.exact ? " exact" : "");
}

CaseData make_data(const OpDef& op, const OpCase& c) {
  CaseData d;
  d.seed = hash(case_name(op, c));
  for (const auto& in : c.in) d.in.push_back(in.spec);
  d.out = op.infer(c.attrs, d.in);
  if (op.saved) d.saved = op.saved(c.attrs, d.in);
  if (op.state) d.state = op.state(c.attrs, d.in);
  PhiloxStream rng(d.seed, RngUse::init);
  auto normal = [&] {
    const double u = 1 - rng.uniform(), v = rng.uniform();
    return std::sqrt(-2 * std::log(u)) * std::cos(6.283185307179586 * v);
  };
  auto draw = [&](const TensorSpec& spec, Fill fill) {
    std::vector<double> v(spec.shape.numel());
    for (auto& x : v) switch (fill) {
        case Fill::normal:
          x = normal();
          break;
        case Fill::scaled:
          x = normal() / std::sqrt(static_cast<double>(spec.shape.channels()));
          break;
        case Fill::positive:
          x = 0.5 + rng.uniform();
          break;
        case Fill::integers:
          x = double(rng.below(5)) - 2;
          break;
        case Fill::labels:
          x = rng.below(uint32_t(d.in[0].shape.channels()));
          break;
        case Fill::rows:
          x = rng.uniform();
          break;
        case Fill::pixels:
          x = spec.dtype == DType::u8 ? rng.below(256) : 255 * rng.uniform();
          break;
        case Fill::given:
        case Fill::absent:
          x = std::numeric_limits<double>::quiet_NaN();
          break;
      }
    if (fill == Fill::rows)
      for (int64_t row = 0; row < spec.shape.pixels(); ++row) {
        double sum = 0;
        const int64_t n = spec.shape.channels();
        for (int64_t k = 0; k < n; ++k) sum += v[row * n + k];
        for (int64_t k = 0; k < n; ++k) v[row * n + k] /= sum;
      }
    for (auto& x : v) x = rounded(x, spec.dtype);
    return v;
  };
  for (const auto& in : c.in)
    d.in_values.push_back(in.fill == Fill::given ? std::vector<double>(in.given.begin(), in.given.end())
                                                 : draw(in.spec, in.fill));
  for (const auto& s : d.state) d.state_values.push_back(draw(s, c.exact ? Fill::integers : Fill::positive));
  for (const auto& s : d.out) d.dout_values.push_back(draw(s, c.exact ? Fill::integers : Fill::normal));
  for (const auto& s : d.in) d.din_start.push_back(draw(s, c.exact ? Fill::integers : Fill::normal));
  return d;
}

Result run(Device& device, const OpDef& op, const OpCase& c, const CaseData& data, bool accumulate,
           int only) {
  return execute(device, device.backend(), op, c, data, data.in, data.out, data.saved, data.state, accumulate,
                 case_name(op, c), only);
}

Result run_reference(const OpDef& op, const OpCase& c, const CaseData& data, bool accumulate) {
  static auto host = open_device("ref");
  return execute(*host, Backend::ref, op, c, data, as_double(data.in), as_double(data.out),
                 as_double(data.saved), as_double(data.state), accumulate,
                 "reference of " + case_name(op, c));
}

Result run_composition(const OpDef& op, const OpCase& c, const CaseData& data) {
  std::map<std::string, std::vector<double>> values;
  std::map<std::string, TensorSpec> specs;
  for (size_t i = 0; i < data.in.size(); ++i) {
    values["in" + std::to_string(i)] = data.in_values[i];
    specs["in" + std::to_string(i)] = data.in[i];
  }
  for (size_t i = 0; i < data.state.size(); ++i) {
    values["state" + std::to_string(i)] = data.state_values[i];
    specs["state" + std::to_string(i)] = data.state[i];
  }
  for (const auto& step : op.composition(c.attrs, data.in)) {
    const OpDef& part = find_op(step.op);
    OpCase pc{.attrs = step.attrs};
    CaseData pd;
    pd.seed = data.seed;  // the same masks
    for (const auto& name : step.in) {
      const bool absent = !specs.count(name) ||
                          (name.rfind("in", 0) == 0 && c.in[std::stoi(name.substr(2))].fill == Fill::absent);
      pc.in.push_back({absent ? TensorSpec{} : specs[name], absent ? Fill::absent : Fill::normal});
      pd.in.push_back(pc.in.back().spec);
      // An empty shape counts one element: give it one, so that buffers and values agree.
      pd.in_values.push_back(absent ? std::vector<double>(1, std::numeric_limits<double>::quiet_NaN())
                                    : values[name]);
    }
    for (const auto& name : step.state) {
      pd.state.push_back(specs[name]);
      pd.state_values.push_back(values[name]);
    }
    pd.out = part.infer(pc.attrs, pd.in);
    if (part.saved) pd.saved = part.saved(pc.attrs, pd.in);
    for (const auto& s : pd.out) pd.dout_values.emplace_back(s.shape.numel(), 0.0);
    for (const auto& s : pd.in) pd.din_start.emplace_back(s.shape.numel(), 0.0);
    Result r = run_reference(part, pc, pd, false);
    for (size_t i = 0; i < step.out.size(); ++i) {
      values[step.out[i]] = r.out[i];
      specs[step.out[i]] = pd.out[i];
    }
    for (size_t i = 0; i < step.state.size(); ++i) values[step.state[i]] = r.state[i];
  }
  Result result;
  for (size_t i = 0; i < data.out.size(); ++i) result.out.push_back(values["out" + std::to_string(i)]);
  for (size_t i = 0; i < data.state.size(); ++i) result.state.push_back(values["state" + std::to_string(i)]);
  return result;
}

void expect_close(const std::vector<double>& got, const std::vector<double>& want, double tolerance,
                  const std::string& what) {
  ASSERT_EQ(got.size(), want.size()) << what;
  double square = 0, worst = 0;
  for (double w : want) square += w * w;
  const double rms = std::sqrt(square / std::max<size_t>(1, want.size()));
  if (want.size() > 16)
    EXPECT_GT(rms, 0) << what << ": the reference is all zero, the comparison proves nothing";
  size_t at = 0, bad = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    const double error = std::abs(got[i] - want[i]);
    if (!(error <= tolerance * (std::abs(want[i]) + rms))) ++bad;
    const double excess = std::isnan(got[i]) ? 1e300 : error / (std::abs(want[i]) + rms + 1e-300);
    if (excess > worst) worst = excess, at = i;
  }
  EXPECT_EQ(bad, 0u) << what << ": " << bad << " of " << want.size() << " elements off; worst at " << at
                     << ": got " << got[at] << ", want " << want[at] << " (relative " << worst << ", allowed "
                     << tolerance << ")";
}

double tolerance_of(const OpCase& c) {
  if (c.exact) return 0;
  if (c.tolerance > 0) return c.tolerance;
  bool half = false;
  for (const auto& in : c.in) half |= in.spec.dtype == DType::bf16;
  return half ? 8e-3 : 2e-5;  // one bf16 rounding is 2^-9 relative; f32 sums of a few thousand terms
}

}  // namespace gm::test
