// Every cut of an MBConv block into tiles, chunks and groups that fits in shared memory gives the same
// result.
#include <gtest/gtest.h>

#include "kernels/conv2d/conv2d_attrs.h"
#include "kernels/mbconv/mbconv_gpu.h"
#include "tests/op_harness.h"

namespace gm {
namespace simt_dev {
void mbconv_planned(const OpCall&, const MbconvPlan&);
}

namespace test {
namespace {

struct Block {
  const char* name;
  Shape x;
  int64_t e, k, squeeze;  // e = 0: no expansion
  int kernel, stride, pad_low, pad_high;
  bool residual;
};
const Block kBlocks[] = {{"rows and chunks", {3, 6, 5, 12}, 44, 12, 0, 3, 1, 1, 1, true},
                         {"stride 2, many filters", {2, 9, 8, 8}, 24, 36, 0, 5, 2, 1, 2, false},
                         {"many sums a thread", {5, 6, 8, 4}, 20, 104, 0, 3, 1, 1, 1, false},
                         {"no expansion", {3, 7, 4, 20}, 0, 20, 0, 3, 1, 1, 1, true},
                         {"squeeze-and-excitation", {2, 6, 6, 8}, 40, 12, 3, 3, 1, 1, 1, false}};

// bf16: integers, which relu6 keeps small enough for bf16 to hold; then sums and roundings are exact.
OpCase make(const Block& b, DType t) {
  const bool exact = t == DType::bf16 && !b.squeeze;
  const int64_t e = b.e ? b.e : b.x[3];
  auto input = [&](const TensorSpec& spec, bool there = true) {
    return there ? CaseInput{spec, exact ? Fill::integers : Fill::normal} : CaseInput{{}, Fill::absent};
  };
  OpCase c;
  c.attrs = conv_attrs(b.kernel, b.stride, {b.pad_low, b.pad_low, b.pad_high, b.pad_high})
                .set("act", exact ? Act::relu6 : Act::silu)
                .set("residual", b.residual);
  c.in = {input({b.x, t}),
          input({{e, 1, 1, b.x[3]}, t}, b.e),
          input({{e}, DType::f32}, b.e),
          input({{b.kernel, b.kernel, e}, t}),
          input({{e}, DType::f32}),
          input({{b.k, 1, 1, e}, t}),
          input({{b.k}, DType::f32}),
          input({{b.squeeze, e}, DType::f32}, b.squeeze),
          input({{b.squeeze}, DType::f32}, b.squeeze),
          input({{e, b.squeeze}, DType::f32}, b.squeeze),
          input({{e}, DType::f32}, b.squeeze)};
  c.exact = exact;
  c.tolerance = t == DType::bf16 ? 2.5e-2 : b.squeeze ? 1e-4 : 0;  // reasons: mbconv.def.cpp
  return c;
}

// One run by one plan; every buffer starts as NaN.
class Runner {
 public:
  Runner(const OpCase& c, const CaseData& data) : c_(c), device_(open_device("simt")) {
    for (size_t i = 0; i < c.in.size(); ++i) {
      buffers_.emplace_back(data.in_values[i].size() * 4 + 16);
      const bool absent = c.in[i].fill == Fill::absent;
      for (size_t k = 0; k < data.in_values[i].size() && !absent; ++k) {
        const float f = static_cast<float>(data.in_values[i][k]);
        const bf16 h = to_bf16(f);
        if (c.in[i].spec.dtype == DType::bf16)
          std::memcpy(buffers_[i].data() + 2 * k, &h, 2);
        else
          std::memcpy(buffers_[i].data() + 4 * k, &f, 4);
      }
      in_.push_back({absent ? nullptr : buffers_[i].data(), c.in[i].spec});
    }
  }
  std::vector<double> operator()(const MbconvShape& s, const MbconvPlan& plan) {
    const TensorSpec spec{s.output(), s.dtype};
    std::vector<char> y(spec.bytes(), char(0xff)), workspace(mb_gpu_workspace(s, plan).bytes, char(0xff));
    const std::vector<View> out{{y.data(), spec}};
    simt_dev::mbconv_planned(
        OpCall{c_.attrs, in_, out, {}, {}, {}, {}, View{workspace.data(), {}}, device_->context()}, plan);
    std::vector<double> values;
    for (int64_t i = 0; i < spec.shape.numel(); ++i)
      values.push_back(s.dtype == DType::bf16 ? to_float(reinterpret_cast<const bf16*>(y.data())[i])
                                              : reinterpret_cast<const float*>(y.data())[i]);
    return values;
  }

 private:
  const OpCase& c_;
  std::unique_ptr<Device> device_;
  struct alignas(64) Line {
    char bytes[64];
  };
  struct Bytes {  // aligned as tensors are
    explicit Bytes(size_t n) : lines((n + 63) / 64) {}
    char* data() { return lines[0].bytes; }
    std::vector<Line> lines;
  };
  std::vector<Bytes> buffers_;
  std::vector<View> in_;
};

TEST(Mbconv, EveryPlanGivesTheSame) {
  const OpDef& op = find_op("mbconv");
  bool rows = false, images = false, groups = false, loops = false;
  int most_sums[2] = {};
  for (DType t : {DType::f32, DType::bf16})
    for (const Block& b : kBlocks) {
      SCOPED_TRACE(std::string(b.name) + " " + dtype_name(t));
      const OpCase c = make(b, t);
      const CaseData data = make_data(op, c);
      const std::vector<double> want = run_reference(op, c, data, false).out[0];
      const MbconvShape s = mbconv_shape(c.attrs, data.in);
      Runner run(c, data);
      std::vector<double> one_group;
      for (const MbconvPlan& p : mbconv_plans(s)) {
        SCOPED_TRACE(testing::Message() << "rows " << p.rows << " images " << p.images << " chunk " << p.chunk
                                        << " groups " << p.groups << " sums " << p.sums);
        const std::vector<double> got = run(s, p);
        expect_close(got, want, tolerance_of(c), "y");
        // The order of additions is that of the channels, unless groups share them out.
        if (p.groups == 1 && !b.squeeze) {
          if (one_group.empty()) one_group = got;
          EXPECT_EQ(got, one_group);
        }
        rows |= p.row_tiles > 1, images |= p.images > 1, groups |= p.groups > 1;
        loops |= p.chunks_per_group() > 2;
        int& most = most_sums[t == DType::bf16];
        most = std::max(most, p.sums);
        if (HasFailure()) return;
      }
      ASSERT_FALSE(one_group.empty() && !b.squeeze);
    }
  EXPECT_TRUE(rows && images && groups && loops);
  EXPECT_EQ(most_sums[0], MbUnit<float>::kMostSums);
  EXPECT_EQ(most_sums[1], MbUnit<bf16>::kMostSums);
}

TEST(Mbconv, RefusesWhatDoesNotFit) {
  OpCase c = make(kBlocks[0], DType::f32);
  Specs in;
  for (const CaseInput& i : c.in) in.push_back(i.spec);
  auto message = [&] {
    try {
      find_op("mbconv").infer(c.attrs, in);
    } catch (const Error& e) {
      return std::string(e.what());
    }
    return std::string();
  };
  EXPECT_EQ(message(), "");
  c.attrs.set("stride", 2);
  EXPECT_NE(message().find("residual"), std::string::npos) << message();
  c.attrs.set("stride", 1);
  in[5].shape = {12, 1, 1, 43};
  EXPECT_NE(message().find("w_project must be (12,1,1,44)"), std::string::npos) << message();
  in[5].shape = {12, 1, 1, 44};
  in[4].dtype = DType::bf16;
  EXPECT_NE(message().find("wrong type"), std::string::npos) << message();
}

// A tile of one row of this map alone is larger than shared memory.
TEST(Mbconv, HasNoPlanForLargeMaps) {
  const MbconvShape wide{
      .d = DepthwiseShape(
          {{"kernel", 3}, {"pad_left", 1}, {"pad_right", 1}, {"pad_top", 1}, {"pad_bottom", 1}},
          {1, 8, 4096, 64}),
      .in_channels = 64,
      .out_channels = 64,
      .squeeze = 0,
      .expand = true,
      .residual = false,
      .act = Act::silu,
      .dtype = DType::f32};
  EXPECT_FALSE(mbconv_plan(wide));
  EXPECT_FALSE(mbconv_pays(wide));
}

}  // namespace
}  // namespace test
}  // namespace gm
