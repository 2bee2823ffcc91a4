// Convolution beyond the conformance walk: our own CPU path next to oneDNN's, the activation epilogue, and
// sums that do not depend on the number of threads.
#define GM_CPU_NS cpu_baseline
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <tuple>

#include "engine/buffer.h"
#include "kernels/common/cuda_results.h"
#include "kernels/conv2d/conv2d_attrs.h"
#include "kernels/conv2d/conv2d_chunking.h"
#include "kernels/conv2d/conv2d_cpu.h"
#include "kernels/conv2d/conv2d_own.h"
#include "tests/op_harness.h"

namespace gm::test {

namespace {

template <class T>
std::vector<T> encode(const std::vector<double>& values) {
  std::vector<T> out;
  for (double v : values) out.push_back(from_float<T>(static_cast<float>(v)));
  return out;
}
template <class T>
std::vector<double> decode(const std::vector<T>& values) {
  std::vector<double> out;
  for (T v : values) out.push_back(to_float(v));
  return out;
}

// Forward and backward of one case chunk by chunk, the way a fused op does it: every dy chunk and every y
// chunk in its own memory.
template <class T>
void check_chunks(const OpCase& c, bool allow_library) {
  const OpDef& op = find_op("conv2d");
  const CaseData data = make_data(op, c);
  const Result want = run_reference(op, c, data, true);
  const ConvGeometry g = conv_geometry(c.attrs, data.in);
  ThreadPool pool(2);
  const std::vector<T> x = encode<T>(data.in_values[0]), w = encode<T>(data.in_values[1]);
  std::vector<T> y(static_cast<size_t>(g.out_pixels() * g.k)), dx = encode<T>(data.din_start[0]);
  const std::vector<T> dy = encode<T>(data.dout_values[0]);
  std::vector<float> dw = encode<float>(data.din_start[1]);

  const cpu_baseline::ConvChunks forward(g, Pass::forward, pool, allow_library);
  std::vector<char> packed(forward.chunking().packed_bytes(onednn::ConvPass::forward));
  forward.pack_forward(w.data(), packed.data());
  int64_t covered = 0;
  for (int64_t i = 0; i < forward.chunking().chunks; ++i) covered += forward.chunking().chunk(i).y_pixels;
  ASSERT_EQ(covered, g.out_pixels());
  pool.run(forward.chunking().chunks, [&](int64_t i, int thread) {
    const ConvChunk k = forward.chunking().chunk(i);
    std::vector<T> mine(static_cast<size_t>(k.y_pixels * g.k));
    forward.forward_to(i, x.data(), packed.data(), mine.data(), thread);
    std::memcpy(static_cast<void*>(y.data() + k.y_begin * g.k), mine.data(), mine.size() * sizeof(T));
  });
  std::vector<double> got = decode(y);
  const bool bias = c.in[2].fill != Fill::absent, residual = c.in[3].fill != Fill::absent;
  auto add = [&](size_t i, double v) { got[i] = to_float(from_float<T>(static_cast<float>(got[i] + v))); };
  for (size_t i = 0; i < got.size(); ++i) {
    if (bias) add(i, data.in_values[2][i % static_cast<size_t>(g.k)]);
    if (residual) add(i, data.in_values[3][i]);
  }
  expect_close(got, want.out[0], (1 + bias + residual) * tolerance_of(c), "y");

  const cpu_baseline::ConvChunks backward(g, Pass::backward, pool, allow_library);
  const ConvChunking& chunking = backward.chunking();
  std::vector<char> turned(chunking.packed_bytes(onednn::ConvPass::backward_data)),
      partials(chunking.partials_bytes());
  backward.pack_backward(w.data(), turned.data());
  pool.run(chunking.groups, [&](int64_t group, int thread) {
    const auto [first, last] = backward.group(group);
    for (int64_t i = first; i < last; ++i) {
      const ConvChunk k = chunking.chunk(i);
      const std::vector<T> mine(dy.begin() + k.y_begin * g.k, dy.begin() + (k.y_begin + k.y_pixels) * g.k);
      backward.backward_data(i, mine.data(), turned.data(), dx.data(), true, thread);
      backward.backward_weights(i, x.data(), mine.data(), partials.data(), group, i == first, thread);
    }
  });
  backward.finish_weights(partials.data(), dw.data(), true);
  expect_close(decode(dx), want.din[0], tolerance_of(c), "dx");
  expect_close(decode(dw), want.din[1], tolerance_of(c), "dw");
}

class ConvChunkTest : public testing::TestWithParam<bool> {};

}  // namespace

TEST_P(ConvChunkTest, MatchesReference) {
  if (GetParam() && !onednn::available()) GTEST_SKIP() << "built or run without oneDNN";
  for (const OpCase& c : find_op("conv2d").cases()) {
    SCOPED_TRACE(case_name(find_op("conv2d"), c));
    if (c.in[0].spec.dtype == DType::f32)
      check_chunks<float>(c, GetParam());
    else
      check_chunks<bf16>(c, GetParam());
    if (HasFailure()) break;
  }
}
INSTANTIATE_TEST_SUITE_P(Paths, ConvChunkTest, testing::Bool(), [](const auto& info) {
  return std::string(info.param ? "with_library" : "own_kernels");
});

// Weights so large that one partial gradient serves several chunks.
TEST_P(ConvChunkTest, PartialWeightGradientsSumTheirChunks) {
  if (GetParam() && !onednn::available()) GTEST_SKIP() << "built or run without oneDNN";
  const OpCase c{.attrs = conv_attrs(3, 1, {1, 1, 1, 1}),
                 .in = {{{{9, 1, 1, 324}, DType::f32}},
                        {{{324, 3, 3, 324}, DType::f32}},
                        {{{324}, DType::f32}},
                        {{}, Fill::absent}}};
  const ConvChunking chunking(conv_geometry(c.attrs, make_data(find_op("conv2d"), c).in), Pass::backward);
  ASSERT_GT(chunking.group, 1);
  ASSERT_GT(chunking.groups, 1);
  check_chunks<float>(c, GetParam());
}

// The two ops that walk the chunks, with the library where there is one.
TEST(ConvGroups, GradientsAreThoseOfAllChunks) {
  auto device = open_device("cpu");
  const TensorSpec vector{{324}, DType::f32};
  const CaseInput x{{{9, 1, 1, 324}, DType::f32}}, w{{{324, 3, 3, 324}, DType::f32}, Fill::scaled};
  const OpCase conv{.attrs = conv_attrs(3, 1, {1, 1, 1, 1}), .in = {x, w, {vector}, {{}, Fill::absent}}},
      with_bn{.attrs = Attrs(conv.attrs).set("eps", 1e-3).set("momentum", 0.9).set("training", 1),
              .in = {x, w, {vector, Fill::positive}, {vector}, {{}, Fill::absent}}};
  for (const auto& [name, c] : {std::pair{"conv2d", conv}, {"conv_bn_act", with_bn}}) {
    const OpDef& op = find_op(name);
    const CaseData data = make_data(op, c);
    const Result got = run(*device, op, c, data, false), want = run_reference(op, c, data, false);
    for (int i : {0, 1, 2}) expect_close(got.din[i], want.din[i], 1e-4, name + (" din" + std::to_string(i)));
  }
}

// Outputs that lie in the padding altogether.
TEST_P(ConvChunkTest, PaddingMayBeAsWideAsTheKernel) {
  if (GetParam() && !onednn::available()) GTEST_SKIP() << "built or run without oneDNN";
  for (int64_t channels : {1, 5}) {
    const OpCase c{.attrs = conv_attrs(3, 1, {4, 5, 3, 4}),
                   .in = {{{{2, 3, 4, channels}, DType::f32}, Fill::integers},
                          {{{7, 3, 3, channels}, DType::f32}, Fill::integers},
                          {{}, Fill::absent},
                          {{}, Fill::absent}},
                   .exact = true};
    check_chunks<float>(c, GetParam());
  }
}

TEST(ConvEpilogue, AppliesBiasAndActivation) {
  const OpDef& op = find_op("conv2d");
  for (const char* device_name : {"cpu", "simt"}) {
    auto device = open_device(device_name);
    for (int act = 1; act <= 4; ++act)
      for (const auto& [t, kernel, channels] : {std::tuple{DType::f32, 3, 12},
                                                {DType::bf16, 3, 12},     // the general kernels
                                                {DType::bf16, 3, 16},     // those for few channels
                                                {DType::bf16, 1, 16}}) {  // those for 1x1
        OpCase c;
        const double pad = kernel / 2, filters = channels + 8;
        c.attrs = {{"kernel", kernel},  {"stride", 1 + pad}, {"pad_top", 0}, {"pad_left", pad},
                   {"pad_bottom", pad}, {"pad_right", 0},    {"act", act}};
        const auto k = static_cast<int64_t>(filters);
        c.in = {{{{2, 8, 9, channels}, t}}, {{{k, kernel, kernel, channels}, t}}, {{{k}, DType::f32}}};
        SCOPED_TRACE(std::string(device_name) + " " + case_name(op, c));
        const CaseData data = make_data(op, c);
        // Forward only: the tests' runner would also ask for the gradient, which the epilogue does not have.
        Context ctx = device->context();
        std::vector<Buffer> keep;
        auto place = [&](const TensorSpec& spec, const std::vector<double>* values) {
          keep.emplace_back(*device, spec.bytes());
          View v{keep.back().data(), spec};
          if (values) {
            for (size_t i = 0; i < values->size(); ++i)
              if (spec.dtype == DType::f32)
                v.as<float>()[i] = static_cast<float>((*values)[i]);
              else
                v.as<bf16>()[i] = to_bf16(static_cast<float>((*values)[i]));
          }
          return v;
        };
        const std::vector<View> in{place(data.in[0], &data.in_values[0]),
                                   place(data.in[1], &data.in_values[1]),
                                   place(data.in[2], &data.in_values[2])};
        const std::vector<View> out{place(data.out[0], nullptr)};
        Buffer workspace(*device, op.workspace(device->backend(), Pass::forward, c.attrs, data.in) + 256);
        const OpCall call{c.attrs, in, out, {}, {}, {}, {}, View{workspace.data(), {}}, ctx};
        kernel_table(device->backend())[op_index(op)].forward(call);
        std::vector<double> got(static_cast<size_t>(out[0].numel()));
        for (size_t i = 0; i < got.size(); ++i)
          got[i] = t == DType::f32 ? out[0].as<float>()[i] : to_float(out[0].as<bf16>()[i]);

        OpCase plain = c;
        plain.attrs.set("act", 0);
        CaseData same = data;
        std::vector<double> want = run_reference(op, plain, same, false).out[0];
        for (double& v : want) {
          const double s = 1 / (1 + std::exp(-v));
          v = act == 1 ? v * s : act == 4 ? s : act == 2 ? std::max(v, 0.) : std::min(std::max(v, 0.), 6.);
        }
        expect_close(got, want, tolerance_of(c), "y");
        EXPECT_THROW(kernel_table(device->backend())[op_index(op)].backward(call), Error);
      }
  }
}

// What library plans are held against, and what is a candidate beside them: every graph that cuDNN is asked
// for, on the CUDA kernels' text.
class ConvOwnResult : public testing::TestWithParam<bool> {};
TEST_P(ConvOwnResult, AnswersEveryQuestion) {
  using namespace gm::cuda;
  auto device = open_device("simt");
  for (const OpCase& c : find_op("conv2d").cases()) {
    if (c.large || c.exact) continue;
    SCOPED_TRACE(case_name(find_op("conv2d"), c));
    const CaseData data = make_data(find_op("conv2d"), c);
    CudnnQuestion q{.graph = CudnnGraph::forward, .g = conv_geometry(c.attrs, data.in)};
    q.bias = c.in[2].fill != Fill::absent, q.residual = c.in[3].fill != Fill::absent;
    std::vector<Buffer> keep;
    auto place = [&](const std::vector<double>& values, DType t) {
      keep.emplace_back(*device, values.size() * 4);
      if (t == DType::f32)
        keep.back().upload(encode<float>(values));
      else
        keep.back().upload(encode<bf16>(values));
      return keep.back().data();
    };
    const auto graphs = {CudnnGraph::forward, CudnnGraph::backward_data, CudnnGraph::backward_data_add,
                         CudnnGraph::weights_same, CudnnGraph::weights_f32};
    for (CudnnGraph graph : graphs) {
      q.graph = graph == CudnnGraph::forward && (q.bias || q.residual) ? CudnnGraph::forward_epilogue : graph;
      if (!GetParam() && !own_serves(q)) continue;
      const bool add = graph == CudnnGraph::backward_data_add;
      const Result want = run_reference(find_op("conv2d"), c, data, add);
      const auto& wanted = gradient_of_data(graph)      ? want.din[0]
                           : gradient_of_weights(graph) ? want.din[1]
                                                        : want.out[0];
      ASSERT_EQ(static_cast<int64_t>(wanted.size()), result_values(q));
      const DType t = q.g.dtype;
      ConvOperands o{place(data.in_values[0], t), place(data.in_values[1], t), place(data.dout_values[0], t)};
      if (q.bias) o.bias = place(data.in_values[2], DType::f32);
      if (q.residual) o.residual = place(data.in_values[3], t);
      const std::vector<double> nothing(wanted.size(), std::nan(""));
      o.*result_of(graph) = place(add ? data.din_start[0] : nothing, own_result_type(q));
      const Buffer& result = keep.back();
      const Buffer workspace(*device, conv_workspace(Backend::simt, Pass::backward, q.g));
      own_convolution(device->context(), q, o, workspace.data(), GetParam());
      std::vector<double> got = own_result_type(q) == DType::f32 ? decode(result.download<float>())
                                                                 : decode(result.download<bf16>());
      got.resize(wanted.size());
      expect_close(got, wanted, tolerance_of(c), "graph " + std::to_string(int(q.graph)));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Kernels, ConvOwnResult, testing::Bool(),
                         [](const auto& info) { return std::string(info.param ? "general" : "special"); });

TEST(ConvVerdict, ATransposedResultIsWrongAndARoundedOneIsNot) {
  std::vector<float> want, rounded, turned(240);
  for (int i = 0; i < 240; ++i) want.push_back(std::sin(float(i * i)));
  for (float v : want) rounded.push_back(to_float(to_bf16(v)));
  for (int i = 0; i < 240; ++i) turned[i] = want[i % 12 * 20 + i / 12];
  EXPECT_EQ(relative_difference(want, want), 0);
  EXPECT_LT(relative_difference(rounded, want), 0.01);
  EXPECT_GT(relative_difference(turned, want), 0.5);
  rounded[7] = std::nanf("");
  EXPECT_GT(relative_difference(rounded, want), 1e300);  // an element that was not written
  EXPECT_EQ(relative_difference(want, rounded), 0);      // nothing to hold it against
  EXPECT_GT(relative_difference(want, std::vector<float>(240)), 1);
}

TEST(ConvLibrary, TheGradientOfAPointwiseConvolutionSwapsItsChannels) {
  for (int kernel : {1, 3}) {
    const int pad = kernel / 2;
    const Specs in{{{2, 4, 5, 16}, DType::bf16}, {{24, kernel, kernel, 16}, DType::bf16}};
    const ConvChunking chunking(conv_geometry(conv_attrs(kernel, 1, {pad, pad, pad, pad}), in),
                                Pass::backward);
    const auto pass = onednn::ConvPass::backward_data;
    const onednn::ConvShape shape = chunking.library_shape(pass, 0);
    const bool turned = kernel == 1;
    EXPECT_EQ(chunking.library_pass(pass), turned ? onednn::ConvPass::forward : pass);
    EXPECT_EQ(shape.c, turned ? 24 : 16);
    EXPECT_EQ(shape.k, turned ? 16 : 24);
  }
}

// A chunk for which the library wants another layout than the weights were packed in: they are converted, and
// so is its gradient. 1x1 filters of stride 2 at odd and even heights are such on some processors.
TEST(ConvLibrary, WeightsInTheLayoutOfAnotherShapeAreConverted) {
  if (!onednn::available()) GTEST_SKIP() << "built or run without oneDNN";
  auto integers = [](int64_t count, int period) {
    std::vector<float> v;
    for (int64_t i = 0; i < count; ++i) v.push_back(static_cast<float>(i % period - period / 2));
    return v;
  };
  for (const auto& [c, k] : {std::pair<int64_t, int64_t>{3, 8}, {20, 8}, {3, 20}, {16, 8}}) {
    SCOPED_TRACE(testing::Message() << c << " channels, " << k << " filters");
    auto shape_of = [&](int64_t h) {
      return onednn::ConvShape{1, h, 28, c, k, 1, 1, (h + 1) / 2, 14, 2, 0, 0, DType::f32};
    };
    const onednn::ConvShape shape = shape_of(7), layout = shape_of(28);
    const std::vector<float> x = integers(shape.h * shape.w * c, 7), w = integers(k * c, 5),
                             dy = integers(shape.oh * shape.ow * k, 3);
    std::vector<float> y(dy.size()), dx(x.size()), dw(w.size()), want_y(dy.size()), want_dx(x.size()),
        want_dw(w.size());
    for (int64_t oy = 0; oy < shape.oh; ++oy)
      for (int64_t ox = 0; ox < shape.ow; ++ox)
        for (int64_t j = 0; j < k; ++j)
          for (int64_t i = 0; i < c; ++i) {
            const int64_t out = (oy * shape.ow + ox) * k + j, in = (2 * oy * shape.w + 2 * ox) * c + i;
            want_y[out] += x[in] * w[j * c + i];
            want_dx[in] += dy[out] * w[j * c + i];
            want_dw[j * c + i] += dy[out] * x[in];
          }
    auto packed = [&](onednn::ConvPass pass) {
      const bool both = onednn::packed_bytes(pass, shape) && onednn::packed_bytes(pass, layout);
      return std::vector<float>(both ? onednn::packed_bytes(pass, layout) / sizeof(float) : 0);
    };
    if (auto p = packed(onednn::ConvPass::forward); !p.empty()) {
      onednn::pack_weights(onednn::ConvPass::forward, layout, w.data(), p.data());
      onednn::conv_forward(shape, layout, x.data(), p.data(), y.data());
      EXPECT_EQ(y, want_y);
    }
    if (auto p = packed(onednn::ConvPass::backward_data); !p.empty()) {
      onednn::pack_weights(onednn::ConvPass::backward_data, layout, w.data(), p.data());
      onednn::conv_backward_data(shape, layout, dy.data(), p.data(), dx.data());
      EXPECT_EQ(dx, want_dx);
    }
    if (auto p = packed(onednn::ConvPass::backward_weights); !p.empty()) {
      onednn::conv_backward_weights(shape, layout, x.data(), dy.data(), p.data());
      onednn::unpack_gradient(layout, p.data(), dw.data());
      EXPECT_EQ(dw, want_dw);
    }
  }
}

// What bf16 asks for where the processor multiplies it: the gradient of a 1x1 convolution as a convolution.
TEST(ConvLibrary, TurnedFiltersGiveTheGradientOfAPointwiseConvolution) {
  if (!onednn::available()) GTEST_SKIP() << "built or run without oneDNN";
  constexpr int kPixels = 5, kFilters = 24, kChannels = 16;
  const onednn::ConvShape shape{.n = 1,
                                .h = kPixels,
                                .w = 1,
                                .c = kFilters,
                                .k = kChannels,
                                .r = 1,
                                .s = 1,
                                .oh = kPixels,
                                .ow = 1,
                                .stride = 1,
                                .pad_top = 0,
                                .pad_left = 0,
                                .dtype = DType::f32};
  const size_t bytes = onednn::packed_bytes(onednn::ConvPass::forward, shape);
  if (!bytes) GTEST_SKIP() << "the library has no kernel for it here";
  std::vector<float> w(kFilters * kChannels), dy(kPixels * kFilters), dx(kPixels * kChannels);
  for (size_t i = 0; i < w.size(); ++i) w[i] = static_cast<float>(i % 7) - 3;
  for (size_t i = 0; i < dy.size(); ++i) dy[i] = static_cast<float>(i % 5) - 2;
  std::vector<char> packed(bytes);
  onednn::pack_weights(onednn::ConvPass::forward, shape, w.data(), packed.data(), true);
  onednn::conv_forward(shape, shape, dy.data(), packed.data(), dx.data());
  for (int p = 0; p < kPixels; ++p)
    for (int c = 0; c < kChannels; ++c) {
      float want = 0;
      for (int k = 0; k < kFilters; ++k) want += dy[p * kFilters + k] * w[k * kChannels + c];
      EXPECT_EQ(dx[p * kChannels + c], want) << "pixel " << p << ", channel " << c;
    }
}

TEST(ConvThreads, GradientsAreTheSameBitsForAnyNumberOfThreads) {
  const OpDef& op = find_op("conv2d");
  for (const OpCase& c : op.cases()) {
    if (c.exact || c.in[0].spec.shape[0] < 2) continue;
    SCOPED_TRACE(case_name(op, c));
    const CaseData data = make_data(op, c);
    Result first;
    for (int threads : {1, 2, 3}) {
      auto device = open_device("cpu", {.threads = threads});
      const Result got = run(*device, op, c, data, false);
      if (threads == 1)
        first = got;
      else
        EXPECT_TRUE(got.out == first.out && got.din == first.din) << threads << " threads";
    }
  }
}

}  // namespace gm::test
