// Walks op_list.inc: every op, every case, every backend against the double-precision reference.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>

#include "kernels/common/backends.h"
#include "kernels/common/philox.h"
#include "kernels/common/simt_control.h"
#include "tests/op_direct.h"
#include "tests/op_harness.h"
#include "tests/require_cuda.h"

namespace gm::test {

namespace {

constexpr int64_t kMost = 2500;  // elements of a case in which more add time and no path

struct Param {
  const OpDef* op;
  std::string backend;
};
std::vector<Param> params() {
  std::vector<Param> list;
  for (const OpDef* op : all_ops())
    for (const char* backend : {"cpu", "simt", "cuda"}) list.push_back({op, backend});
  return list;
}
std::string param_name(const testing::TestParamInfo<Param>& info) {
  return std::string(info.param.op->name) + "_" + info.param.backend;
}

// Null when the backend is not usable here; the caller skips.
Device* device_for(const std::string& name) {
  static auto cpu = open_device("cpu"), simt = open_device("simt");
  if (name != "cuda") return name == "cpu" ? cpu.get() : simt.get();
  if (!require_cuda()) return nullptr;
  static auto cuda = open_device("cuda");
  return cuda.get();
}

void expect_result(const Result& got, const Result& want, double tolerance, const std::string& what) {
  for (size_t i = 0; i < want.out.size(); ++i)
    expect_close(got.out[i], want.out[i], tolerance, what + " out" + std::to_string(i));
  for (size_t i = 0; i < want.state.size(); ++i)
    expect_close(got.state[i], want.state[i], tolerance, what + " state" + std::to_string(i));
  for (size_t i = 0; i < want.din.size(); ++i)
    if (!want.din[i].empty())
      expect_close(got.din[i], want.din[i], tolerance, what + " din" + std::to_string(i));
}

bool same_bits(const Result& a, const Result& b) {
  // Every dtype is a double exactly, the sign of zero and what a NaN carries included.
  auto bits = [](double value) { return std::bit_cast<uint64_t>(value); };
  auto equal = [&](const auto& x, const auto& y) {
    return std::ranges::equal(
        x, y, [&](const auto& v, const auto& w) { return std::ranges::equal(v, w, {}, bits, bits); });
  };
  return equal(a.out, b.out) && equal(a.saved, b.saved) && equal(a.state, b.state) && equal(a.din, b.din);
}

}  // namespace

class OpConformance : public testing::TestWithParam<Param> {};

TEST_P(OpConformance, MatchesReference) {
  const OpDef& op = *GetParam().op;
  Device* device = device_for(GetParam().backend);
  if (!device) GTEST_SKIP() << "no GPU: " << no_cuda_reason();
  const bool simt = device->backend() == Backend::simt;
  // GM_SMALL_CASES: the sanitizers' run leaves out real network shapes, which simt does anyway, and does
  // nothing twice.
  const bool sanitized = std::getenv("GM_SMALL_CASES");
  const bool cpu = device->backend() == Backend::cpu;
  const std::vector<std::string> sets = cpu ? cpu_kernels_names() : std::vector<std::string>{""};
  int ran = 0;
  for (const OpCase& c : op.cases()) {
    if ((simt || sanitized) && c.large) continue;
    SCOPED_TRACE(case_name(op, c));
    const CaseData data = make_data(op, c);
    for (bool accumulate : {false, true}) {
      if (accumulate && op.differentiable.empty()) continue;
      const Result want = run_reference(op, c, data, accumulate);
      Result widest;
      for (const std::string& set : sets) {  // every instruction set that this processor has
        SCOPED_TRACE(set);
        if (cpu) install_cpu_kernels(set);
        Result first;
        // simt: every order of threads must give the same bits, or a barrier is missing.
        for (int repeat = 0; repeat < (simt ? 3 : sanitized ? 1 : 2); ++repeat) {
          if (simt) simt::set_schedule({static_cast<simt::Order>(repeat), 7});
          const Result got = run(*device, op, c, data, accumulate);
          if (repeat == 0) {
            expect_result(got, want, tolerance_of(c), accumulate ? "accumulate" : "overwrite");
            first = got;
          } else {
            EXPECT_TRUE(same_bits(got, first)) << "two runs differ";
          }
        }
        // A network that is trained on one machine sees the same pixels on another.
        if (set == sets.front()) widest = first;
        if (op.name == "augment") EXPECT_TRUE(same_bits(first, widest)) << "other pixels";
      }
    }
    ++ran;
    if (HasFailure()) break;
  }
  install_cpu_kernels();
  EXPECT_GT(ran, 0) << "op without a case for this backend";
}
INSTANTIATE_TEST_SUITE_P(Ops, OpConformance, testing::ValuesIn(params()), param_name);

// A network does not ask for every gradient: not for the image's, and not for those of frozen weights.
class OpGradients : public testing::TestWithParam<Param> {};

TEST_P(OpGradients, AreTheSameAlone) {
  const OpDef& op = *GetParam().op;
  if (std::getenv("GM_SMALL_CASES")) GTEST_SKIP() << "the same kernels as in MatchesReference";
  Device* device = device_for(GetParam().backend);
  if (!device) GTEST_SKIP() << "no GPU: " << no_cuda_reason();
  int compared = 0;
  bool accumulate = false;  // every other case
  for (const OpCase& c : op.cases()) {
    int64_t elements = 0;
    for (const CaseInput& in : c.in) elements += in.spec.shape.numel();
    if (c.large || elements > kMost) continue;
    SCOPED_TRACE(case_name(op, c));
    const CaseData data = make_data(op, c);
    accumulate = !accumulate;
    const Result all = run(*device, op, c, data, accumulate);
    for (int i : op.differentiable) {
      if (i >= static_cast<int>(all.din.size()) || all.din[i].empty()) continue;
      EXPECT_EQ(run(*device, op, c, data, accumulate, i).din[i], all.din[i]) << "din" << i << " alone";
      ++compared;
    }
    if (HasFailure()) break;
  }
  EXPECT_GT(compared, 0);
}
std::vector<Param> params_of_several_gradients() {
  std::vector<Param> list = params();
  std::erase_if(list, [](const Param& p) { return p.op->differentiable.size() < 2; });
  return list;
}
INSTANTIATE_TEST_SUITE_P(Ops, OpGradients, testing::ValuesIn(params_of_several_gradients()), param_name);

// An output that nothing further reads has no gradient: a pooled head's map, the last state of a controller.
class OpMissingGradient : public testing::TestWithParam<Param> {};

TEST_P(OpMissingGradient, CountsAsZero) {
  const OpDef& op = *GetParam().op;
  Device* device = device_for(GetParam().backend);
  if (!device) GTEST_SKIP() << "no GPU: " << no_cuda_reason();
  int compared = 0;
  for (const OpCase& c : op.cases()) {
    if (c.large || c.in[0].spec.shape.numel() > kMost) continue;
    SCOPED_TRACE(case_name(op, c));
    const CaseData data = make_data(op, c);
    for (size_t i = 0; data.out.size() > 1 && i < data.out.size(); ++i) {
      CaseData missing = data, zero = data;
      missing.dout_values[i].clear();
      std::ranges::fill(zero.dout_values[i], 0.);
      const bool accumulate = ++compared % 2;
      const Result got = run(*device, op, c, missing, accumulate),
                   want = run(*device, op, c, zero, accumulate);
      for (int k : op.differentiable)
        if (!want.din[k].empty())
          expect_close(got.din[k], want.din[k], tolerance_of(c),
                       "din" + std::to_string(k) + " without the gradient of out" + std::to_string(i));
    }
    if (HasFailure()) break;
  }
  EXPECT_GT(compared, 0);
}
std::vector<Param> params_of_several_outputs() {
  std::vector<Param> list = params();
  std::erase_if(list, [](const Param& p) {
    const OpDef& op = *p.op;
    // Of the loss's outputs only one is differentiable.
    if (op.differentiable.empty() || op.name == "softmax_xent") return true;
    const auto cases = op.cases();
    return std::ranges::none_of(cases, [&](const OpCase& c) {
      Specs in;
      for (const CaseInput& i : c.in) in.push_back(i.spec);
      return op.infer(c.attrs, in).size() > 1;
    });
  });
  return list;
}
INSTANTIATE_TEST_SUITE_P(Ops, OpMissingGradient, testing::ValuesIn(params_of_several_outputs()), param_name);

// The planner lets an output take the memory of an input, and a gradient that of the output's.
class OpInPlace : public testing::TestWithParam<Param> {};

TEST_P(OpInPlace, GivesTheSameBits) {
  const OpDef& op = *GetParam().op;
  const char* name = op.name.data();
  if (std::getenv("GM_SMALL_CASES")) GTEST_SKIP() << "the same kernels as in MatchesReference";
  if (!device_for(GetParam().backend)) GTEST_SKIP() << "no GPU: " << no_cuda_reason();
  int compared = 0;
  for (const OpCase& c : op.cases()) {
    if (c.large || c.in[0].spec.shape.numel() > kMost) continue;
    SCOPED_TRACE(case_name(op, c));
    const CaseData data = make_data(op, c);
    Direct d(GetParam().backend);
    d.set_step(data.seed, 3);
    auto place = [&](const TensorSpec& spec, const std::vector<double>& values) {
      std::vector<float> f(values.begin(), values.end());
      if (spec.dtype == DType::f32) return d.put(f, spec.shape);
      std::vector<bf16> half;
      for (float v : f) half.push_back(to_bf16(v));
      return d.put(half, spec.shape);
    };
    auto read = [&](const View& view) {
      std::vector<double> values;
      if (view.dtype() == DType::f32)
        for (float v : d.get<float>(view)) values.push_back(v);
      else
        for (bf16 v : d.get<bf16>(view)) values.push_back(to_float(v));
      return values;
    };
    auto given = [&](int i) { return c.in[i].fill != Fill::absent; };
    auto null = [](const Specs& specs) {
      std::vector<View> views;
      for (const TensorSpec& spec : specs) views.push_back({nullptr, spec});
      return views;
    };
    // Forward with the result in the memory of input `shared` (-1: in its own); saved as they are given.
    std::vector<View> in, saved;
    auto forward = [&](int shared) {
      in = null(data.in);
      for (size_t i = 0; i < in.size(); ++i)
        if (given(static_cast<int>(i))) in[i] = place(data.in[i], data.in_values[i]);
      std::vector<View> out, state;
      for (const TensorSpec& spec : data.out) out.push_back(d.space(spec));
      if (shared >= 0) out[0].data = in[shared].data;
      for (size_t i = 0; i < data.state.size(); ++i)
        state.push_back(place(data.state[i], data.state_values[i]));
      d.forward(name, c.attrs, in, out, saved, state);
      return read(out[0]);
    };
    auto backward = [&](int shared) {
      std::vector<View> dout;
      for (size_t i = 0; i < data.out.size(); ++i) dout.push_back(place(data.out[i], data.dout_values[i]));
      std::vector<GradView> din(in.size());
      for (int i : op.differentiable) {
        if (i >= static_cast<int>(in.size()) || !given(i)) continue;
        TensorSpec spec = data.in[i];
        if (std::ranges::count(op.parameters, i)) spec.dtype = DType::f32;
        din[i] = {i == shared ? View{dout[0].data, spec} : d.space(spec), GradMode::overwrite};
      }
      d.backward(name, c.attrs, in, saved, dout, din);
      std::vector<std::vector<double>> values;
      for (const GradView& g : din)
        if (g) values.push_back(read(g.view));
      return values;
    };
    if (op.forward_inplace >= 0) {
      saved = null(data.saved);
      EXPECT_EQ(forward(op.forward_inplace), forward(-1));
      ++compared;
    }
    saved.clear();
    for (const TensorSpec& spec : data.saved) saved.push_back(d.space(spec));
    forward(-1);
    for (int k : op.backward_inplace) {
      if (k >= static_cast<int>(in.size()) || !given(k)) continue;
      EXPECT_EQ(backward(k), backward(-1)) << "din" << k << " over the gradient of the output";
      ++compared;
    }
    if (HasFailure()) break;
  }
  EXPECT_GT(compared, 0);
}
std::vector<Param> params_in_place() {
  std::vector<Param> list = params();
  std::erase_if(list,
                [](const Param& p) { return p.op->forward_inplace < 0 && p.op->backward_inplace.empty(); });
  return list;
}
INSTANTIATE_TEST_SUITE_P(Ops, OpInPlace, testing::ValuesIn(params_in_place()), param_name);

using Ops = std::vector<const OpDef*>;
Ops ops_where(bool (*keep)(const OpDef&)) {
  Ops list;
  for (const OpDef* op : all_ops())
    if (keep(*op)) list.push_back(op);
  return list;
}
std::string op_name(const testing::TestParamInfo<const OpDef*>& info) {
  return std::string(info.param->name);
}

class OpRails : public testing::TestWithParam<const OpDef*> {};
class OpGradient : public testing::TestWithParam<const OpDef*> {};
class OpFusion : public testing::TestWithParam<const OpDef*> {};
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(OpFusion);

TEST_P(OpRails, IsComplete) {
  const OpDef& op = *GetParam();
  EXPECT_FALSE(op.summary.empty());
  ASSERT_TRUE(op.infer && op.cost && op.cases) << "infer, cost and cases are required";
  bool odd_channels = false;
  for (const OpCase& c : op.cases()) {
    for (const auto& in : c.in) odd_channels |= in.spec.shape.rank > 0 && in.spec.shape.channels() % 8 != 0;
    if (c.tolerance > 0) EXPECT_STRNE(c.why, "") << case_name(op, c) << ": a tolerance needs its reason";
    Specs in;
    for (const auto& i : c.in) in.push_back(i.spec);
    for (const Pass pass : {Pass::forward, Pass::backward}) {
      if (pass == Pass::backward && op.differentiable.empty()) continue;
      const Cost cost = op.cost(pass, c.attrs, in);
      EXPECT_GT(cost.bytes, 0) << case_name(op, c) << ", pass " << static_cast<int>(pass);
      EXPECT_GE(cost.flops, 0) << case_name(op, c) << ", pass " << static_cast<int>(pass);
    }
  }
  EXPECT_TRUE(odd_channels) << "needs a case whose channel count is not a multiple of 8";
  const bool has_backward = kernel_table(Backend::ref)[op_index(op)].backward != nullptr;
  EXPECT_EQ(has_backward, !op.differentiable.empty())
      << "GM_OP needs a gradient rule, GM_OP_FORWARD must have none";
}

// Central differences of the reference forward with a random cotangent against the reference backward. A
// plain sum as the loss would hide every error that batch norm's gradient annihilates.
TEST_P(OpGradient, ReferenceMatchesFiniteDifferences) {
  const OpDef& op = *GetParam();
  int checked = 0;
  for (const OpCase& c : op.cases()) {
    bool half = false;
    int64_t elements = 0;
    for (const auto& in : c.in) half |= in.spec.dtype == DType::bf16, elements += in.spec.shape.numel();
    if (half || !c.smooth || c.large || c.exact || elements > 20000) continue;
    SCOPED_TRACE(case_name(op, c));
    CaseData data = make_data(op, c);
    const Result base = run_reference(op, c, data, false);
    auto loss = [&](const CaseData& d) {
      const Result r = run_reference(op, c, d, false);
      double sum = 0;
      for (size_t o = 0; o < r.out.size(); ++o)
        for (size_t k = 0; k < r.out[o].size(); ++k) sum += r.out[o][k] * data.dout_values[o][k];
      return sum;
    };
    PhiloxStream pick(elements, RngUse::sample);
    for (int i : op.differentiable) {
      if (base.din[i].empty()) continue;
      double square = 0;
      for (double g : base.din[i]) square += g * g;
      const double rms = std::sqrt(square / base.din[i].size());
      for (int n = 0; n < 5; ++n) {
        const size_t k = pick.below(static_cast<uint32_t>(base.din[i].size()));
        const double h = 1e-4;
        CaseData plus = data, minus = data;
        plus.in_values[i][k] += h;
        minus.in_values[i][k] -= h;
        const double numeric = (loss(plus) - loss(minus)) / (2 * h);
        EXPECT_NEAR(base.din[i][k], numeric, 2e-5 * (std::abs(numeric) + rms) + 1e-7)
            << "din" << i << "[" << k << "]";
      }
    }
    if (++checked == 4) break;
  }
  EXPECT_GT(checked, 0) << "no smooth small f32 case: the gradient was never checked";
}

TEST_P(OpFusion, EqualsComposition) {
  const OpDef& op = *GetParam();
  for (const OpCase& c : op.cases()) {
    if (c.large) continue;
    SCOPED_TRACE(case_name(op, c));
    const CaseData data = make_data(op, c);
    const Result fused = run_reference(op, c, data, false);
    expect_result(fused, run_composition(op, c, data), 1e-12, "composition");
  }
}

INSTANTIATE_TEST_SUITE_P(Ops, OpRails, testing::ValuesIn(ops_where([](const OpDef&) { return true; })),
                         op_name);
INSTANTIATE_TEST_SUITE_P(Ops, OpGradient, testing::ValuesIn(ops_where([](const OpDef& op) {
                           return !op.differentiable.empty();
                         })),
                         op_name);
INSTANTIATE_TEST_SUITE_P(Ops, OpFusion,
                         testing::ValuesIn(ops_where([](const OpDef& op) { return bool(op.composition); })),
                         op_name);

}  // namespace gm::test
