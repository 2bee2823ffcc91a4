// What the descriptions of ops refuse: inputs and attributes that do not fit, before a kernel reads past
// them. Each op is given once as it is accepted; each case changes one thing and says what the error must
// name.
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "kernels/augment/augment.h"
#include "kernels/common/op.h"

namespace gm {
namespace {

/// Inputs and attributes that take the place of the accepted ones, and words of the error.
struct Refused {
  std::map<std::string, double> attrs;
  std::map<int, TensorSpec> in;
  const char* words;
};
struct Accepted {
  const char* op;
  Attrs attrs;
  Specs in;
  std::vector<Refused> refused;
};

template <class... N>
TensorSpec f32(N... extents) {
  return {{extents...}, DType::f32};
}
template <class... N>
TensorSpec bf16(N... extents) {
  return {{extents...}, DType::bf16};
}
template <class... N>
TensorSpec i32(N... extents) {
  return {{extents...}, DType::i32};
}
template <class... N>
TensorSpec u8(N... extents) {
  return {{extents...}, DType::u8};
}
const TensorSpec absent;

std::string error_of(const char* op, const Attrs& attrs, const Specs& in) {
  try {
    find_op(op).infer(attrs, in);
  } catch (const Error& e) {
    return e.what();
  }
  return "accepted";
}

void check(const Accepted& accepted) {
  const std::string op = accepted.op;
  EXPECT_EQ(error_of(accepted.op, accepted.attrs, accepted.in), "accepted") << op;
  for (const Refused& r : accepted.refused) {
    Attrs attrs = accepted.attrs;
    Specs in = accepted.in;
    for (const auto& [key, value] : r.attrs) attrs.set(key, value);
    for (const auto& [k, spec] : r.in) in[k] = spec;
    const std::string error = error_of(accepted.op, attrs, in);
    // The geometry of a convolution is read by all ops that hold one.
    EXPECT_TRUE(error.starts_with(op + ": ") || error.starts_with("conv2d: ")) << op << ": " << error;
    EXPECT_PRED_FORMAT2(testing::IsSubstring, r.words, error) << op << " " << attrs.str();
    EXPECT_EQ(error.find('\n'), error.npos) << error;
  }
}

/// Every pad on its own and strides that no convolution has, with the words for both.
void add_conv_attributes(std::vector<Refused>& refused, const char* pads = "paddings not negative",
                         const char* strides = "stride must be positive") {
  for (const char* pad : {"pad_top", "pad_left", "pad_bottom", "pad_right"})
    refused.push_back({{{pad, -1}}, {}, pads});
  for (int stride : {0, -1}) refused.push_back({{{"stride", stride}}, {}, strides});
}
/// gamma is input k, of six channels.
void add_batch_norm(std::vector<Refused>& refused, int k) {
  const std::vector<Refused> more = {
      {{}, {{k, f32(5)}}, "gamma must be f32(6), not f32(5)"},
      {{}, {{k, bf16(6)}}, "gamma must be f32(6), not bf16(6)"},
      {{}, {{k + 1, f32(6, 1)}}, "beta must be f32(6), not f32(6,1)"},
      {{}, {{k + 1, absent}}, "beta must be f32(6), not f32()"},
      {{{"eps", 0}}, {}, "eps must be positive, not 0"},
      {{{"momentum", -0.25}}, {}, "momentum must be in [0, 1], not -0.25"},
      {{{"momentum", 1.25}}, {}, "momentum must be in [0, 1], not 1.25"},
  };
  refused.insert(refused.end(), more.begin(), more.end());
}
void add_activation(std::vector<Refused>& refused) {
  refused.push_back({{{"act", 5}}, {}, "unknown activation 5"});
  refused.push_back({{{"act", -1}}, {}, "unknown activation -1"});
}
/// Behind a convolution: w_squeeze is input k; two of six channels.
void add_squeeze(std::vector<Refused>& refused, int k) {
  const std::vector<Refused> more = {
      {{}, {{k, f32(2, 5)}}, "must be f32(2,6), not f32(2,5)"},
      {{}, {{k, bf16(2, 6)}}, "must be f32(2,6), not bf16(2,6)"},
      {{}, {{k + 1, f32(3)}}, "must be f32(2), not f32(3)"},
      {{}, {{k + 1, i32(2)}}, "must be f32(2), not i32(2)"},
      {{}, {{k + 2, f32(6, 3)}}, "must be f32(6,2), not f32(6,3)"},
      {{}, {{k + 2, absent}}, "must be f32(6,2), not f32()"},
      {{}, {{k + 3, f32(2)}}, "must be f32(6), not f32(2)"},
  };
  refused.insert(refused.end(), more.begin(), more.end());
}

const Attrs kSame{{"kernel", 3},   {"stride", 1},     {"pad_top", 1},
                  {"pad_left", 1}, {"pad_bottom", 1}, {"pad_right", 1}};
Attrs with_norm(Attrs a) { return a.set("eps", 1e-3).set("momentum", 0.9).set("training", 1).set("act", 1); }

TEST(OpRefusal, ElementwiseOps) {
  check({"activation",
         {{"act", 4}},
         {f32(2, 3)},
         {{{{"act", 5}}, {}, "unknown activation 5"},
          {{{"act", -1}}, {}, "unknown activation -1"},
          {{}, {{0, i32(2, 3)}}, "x must be f32 or bf16, not i32(2,3)"}}});
  check({"add",
         {},
         {f32(2, 3), f32(2, 3)},
         {{{}, {{1, f32(3, 2)}}, "f32(2,3) and f32(3,2) differ"},
          {{}, {{1, bf16(2, 3)}}, "f32(2,3) and bf16(2,3) differ"},
          {{}, {{0, u8(4)}, {1, u8(4)}}, "x must be f32 or bf16, not u8(4)"}}});
  check({"dropout",
         {{"rate", 0.5}},
         {f32(2, 3)},
         {{{{"rate", 1}}, {}, "rate 1.0"},
          {{{"rate", -0.5}}, {}, "rate -0.5"},
          {{{"shared", 1}, {"per_sample", 1}}, {}, "cannot be shared"},
          {{}, {{0, i32(2, 3)}}, "x must be f32 or bf16, not i32(2,3)"}}});
}

TEST(OpRefusal, ScalesAndPools) {
  check({"channel_scale",
         {},
         {bf16(2, 3, 5, 4), f32(2, 4)},
         {{{}, {{0, bf16(2, 15, 4)}}, "x must be (N, H, W, C), got bf16(2,15,4)"},
          {{}, {{0, i32(2, 3, 5, 4)}}, "x must be f32 or bf16, not i32(2,3,5,4)"},
          {{}, {{1, f32(2, 5)}}, "s must be f32 (N, C) of x bf16(2,3,5,4), got f32(2,5)"},
          {{}, {{1, f32(1, 4)}}, "got f32(1,4)"},
          {{}, {{1, bf16(2, 4)}}, "got bf16(2,4)"},
          {{}, {{1, i32(2, 4)}}, "got i32(2,4)"}}});
  check({"channel_scale_pool",
         {},
         {bf16(2, 3, 5, 4), f32(2, 4)},
         {{{}, {{0, bf16(2, 15, 4)}}, "x must be (N, H, W, C), got bf16(2,15,4)"},
          {{}, {{0, u8(2, 3, 5, 4)}}, "x must be f32 or bf16, not u8(2,3,5,4)"},
          {{}, {{1, f32(2, 5)}}, "s must be f32 (N, C) of x bf16(2,3,5,4), got f32(2,5)"},
          {{}, {{1, bf16(2, 4)}}, "got bf16(2,4)"},
          {{}, {{1, i32(2, 4)}}, "got i32(2,4)"}}});
  check({"spatial_scale",
         {},
         {bf16(2, 3, 5, 4), f32(2, 3, 5, 1)},
         {{{}, {{0, bf16(2, 15, 4)}}, "x must be (N, H, W, C), got bf16(2,15,4)"},
          {{}, {{0, i32(2, 3, 5, 4)}}, "x must be f32 or bf16, not i32(2,3,5,4)"},
          {{}, {{1, f32(2, 3, 5, 4)}}, "m must be f32 (N, H, W, 1) of x bf16(2,3,5,4), got f32(2,3,5,4)"},
          {{}, {{1, f32(2, 3, 4, 1)}}, "got f32(2,3,4,1)"},
          {{}, {{1, bf16(2, 3, 5, 1)}}, "got bf16(2,3,5,1)"},
          {{}, {{1, u8(2, 3, 5, 1)}}, "got u8(2,3,5,1)"}}});
  for (const char* op : {"global_pool", "global_avg_max_pool", "spatial_pool"})
    check({op,
           {},
           {f32(2, 3, 5, 4)},
           {{{}, {{0, f32(30, 4)}}, "x must be (N, H, W, C), got f32(30,4)"},
            {{}, {{0, u8(2, 3, 5, 4)}}, "x must be f32 or bf16, not u8(2,3,5,4)"}}});
  check({"global_pool",
         {{"kind", 1}},
         {f32(2, 3, 5, 4)},
         {{{{"kind", 2}}, {}, "unknown kind 2"}, {{{"kind", -1}}, {}, "unknown kind -1"}}});
}

TEST(OpRefusal, Convolution) {
  Accepted conv{"conv2d",
                kSame,
                {f32(2, 5, 6, 4), f32(8, 3, 3, 4), f32(8), f32(2, 5, 6, 8)},
                {{{}, {{0, f32(2, 30, 4)}}, "x must be (N,H,W,C)"},
                 {{}, {{1, f32(8, 9, 4)}}, "w (K,R,R,C)"},
                 {{}, {{1, f32(8, 2, 3, 4)}}, "weights do not fit"},
                 {{}, {{1, f32(8, 3, 2, 4)}}, "weights do not fit"},
                 {{}, {{1, f32(8, 3, 3, 5)}}, "w f32(8,3,3,5)"},
                 {{{"kernel", 5}}, {}, "weights do not fit"},
                 {{{"kernel", 0}}, {{1, f32(8, 0, 0, 4)}}, "kernel and stride must be positive"},
                 {{}, {{1, bf16(8, 3, 3, 4)}}, "x and w differ in dtype"},
                 {{}, {{0, u8(2, 5, 6, 4)}, {1, u8(8, 3, 3, 4)}}, "must be f32 or bf16"},
                 {{}, {{0, i32(2, 5, 6, 4)}, {1, i32(8, 3, 3, 4)}}, "must be f32 or bf16"},
                 {{{"pad_top", 0}}, {{0, f32(2, 1, 6, 4)}}, "the kernel is larger than the padded image"},
                 {{{"pad_right", 0}}, {{0, f32(2, 5, 1, 4)}}, "the kernel is larger than the padded image"},
                 {{}, {{2, f32(4)}}, "bias must be f32(8), not f32(4)"},
                 {{}, {{2, bf16(8)}}, "bias must be f32(8), not bf16(8)"},
                 {{}, {{3, f32(2, 5, 6, 4)}}, "the residual is f32(2,5,6,4), the result f32(2,5,6,8)"},
                 {{}, {{3, bf16(2, 5, 6, 8)}}, "the residual is bf16(2,5,6,8)"}}};
  add_conv_attributes(conv.refused);
  add_activation(conv.refused);
  check(conv);

  Accepted scaled{"channel_scale_conv2d",
                  {{"kernel", 1}},
                  {f32(2, 3, 5, 4), f32(2, 4), f32(6, 1, 1, 4), f32(6), f32(2, 3, 5, 6)},
                  {{{}, {{0, f32(2, 15, 4)}}, "x must be (N,H,W,C)"},
                   {{{"stride", 2}}, {}, "must be 1x1"},
                   {{{"pad_top", 1}}, {}, "must be 1x1"},
                   {{}, {{1, f32(2, 5)}}, "s is f32(2,5), not f32(2,4)"},
                   {{}, {{1, bf16(2, 4)}}, "s is bf16(2,4), not f32(2,4)"},
                   {{}, {{2, f32(6, 1, 1, 5)}}, "weights do not fit"},
                   {{}, {{3, f32(4)}}, "bias is f32(4), not f32(6)"},
                   {{}, {{3, i32(6)}}, "bias is i32(6), not f32(6)"},
                   {{}, {{4, f32(2, 3, 5, 4)}}, "residual is f32(2,3,5,4), not f32(2,3,5,6)"},
                   {{}, {{4, bf16(2, 3, 5, 6)}}, "residual is bf16(2,3,5,6), not f32(2,3,5,6)"}}};
  add_activation(scaled.refused);
  check(scaled);
}

TEST(OpRefusal, BatchNorm) {
  const Attrs attrs = with_norm({});
  for (const char* op : {"batch_norm", "batch_norm_act"}) {
    Accepted norm{op,
                  attrs,
                  {f32(2, 3, 5, 6), f32(6), f32(6)},
                  {{{}, {{0, i32(2, 3, 5, 6)}}, "x must be f32 or bf16, not i32(2,3,5,6)"},
                   {{}, {{0, absent}}, "x must be (..., C), not f32()"}}};
    add_batch_norm(norm.refused, 1);
    check(norm);
  }
  Accepted residual{"batch_norm_act",
                    attrs,
                    {f32(2, 3, 5, 6), f32(6), f32(6), f32(2, 3, 5, 6)},
                    {{{{"rate", 1}}, {}, "rate 1.0"},
                     {{{"rate", -0.5}}, {}, "rate -0.5"},
                     {{}, {{3, f32(2, 3, 6, 5)}}, "the residual is f32(2,3,6,5)"},
                     {{}, {{3, bf16(2, 3, 5, 6)}}, "the residual is bf16(2,3,5,6)"},
                     {{{"pool", 1}}, {}, "pool excludes"},
                     {{{"pool", 1}, {"rate", 0.5}}, {{3, absent}}, "pool excludes"},
                     {{{"pool", 1}}, {{0, f32(4, 6)}, {3, absent}}, "pool needs (N, H, W, C), not (4,6)"}}};
  add_activation(residual.refused);
  check(residual);

  Accepted conv{"conv_bn_act",
                with_norm({{"kernel", 1}}),
                {f32(2, 3, 5, 4), f32(6, 1, 1, 4), f32(6), f32(6), f32(2, 3, 5, 6)},
                {{{}, {{1, f32(6, 1, 1, 5)}}, "weights do not fit"},
                 {{}, {{4, f32(2, 3, 5, 4)}}, "the residual is f32(2,3,5,4)"}}};
  add_conv_attributes(conv.refused);
  add_batch_norm(conv.refused, 2);
  add_activation(conv.refused);
  check(conv);
}

TEST(OpRefusal, DepthwiseConvolution) {
  // x, w, what follows: six channels.
  const std::vector<Refused> depthwise = {
      {{}, {{0, f32(2, 30, 6)}}, "x must be f32 or bf16 (N,H,W,C), not f32(2,30,6)"},
      {{}, {{0, i32(2, 5, 6, 6)}, {1, i32(3, 3, 6)}}, "x must be f32 or bf16"},
      {{{"kernel", 2}}, {{1, f32(2, 2, 6)}}, "kernel must be odd, not 2"},
      {{{"kernel", -1}}, {{1, f32(-1, -1, 6)}}, "kernel must be odd, not -1"},
      {{{"stride", 3}}, {}, "stride must be 1 or 2, not 3"},
      {{{"pad_top", 3}}, {}, "pad_top must be in [0, kernel), not 3"},
      {{{"pad_left", 3}}, {}, "pad_left must be in [0, kernel), not 3"},
      {{{"pad_bottom", 3}}, {}, "pad_bottom must be in [0, kernel), not 3"},
      {{{"pad_right", 3}}, {}, "pad_right must be in [0, kernel), not 3"},
      // One row, one column too few, which a stride of 2 rounds away.
      {{{"stride", 2}, {"pad_top", 0}}, {{0, f32(2, 1, 6, 6)}}, "kernel larger than the padded image"},
      {{{"stride", 2}, {"pad_left", 0}}, {{0, f32(2, 5, 1, 6)}}, "kernel larger than the padded image"},
      {{}, {{1, f32(3, 3, 5)}}, "w must be (kernel, kernel, C) like x f32(2,5,6,6), not f32(3,3,5)"},
      {{}, {{1, f32(3, 5, 6)}}, "not f32(3,5,6)"},
      {{}, {{1, bf16(3, 3, 6)}}, "not bf16(3,3,6)"}};
  auto refused = [&](std::vector<Refused> more) {
    add_conv_attributes(more, "must be in [0, kernel), not -1", "stride must be 1 or 2, not ");
    add_activation(more);
    more.insert(more.end(), depthwise.begin(), depthwise.end());
    return more;
  };
  const TensorSpec x = f32(2, 5, 6, 6), w = f32(3, 3, 6), vector = f32(6);
  const std::vector<Refused> bias = {{{}, {{2, f32(5)}}, "bias must be f32(6), not f32(5)"},
                                     {{}, {{2, bf16(6)}}, "bias must be f32(6), not bf16(6)"}};
  check({"depthwise_conv2d", kSame, {x, w, vector}, refused(bias)});

  Accepted norm{"depthwise_bn_act",
                with_norm(kSame),
                {x, w, vector, vector},
                refused({{{{"rate", 0.5}}, {}, "no stochastic depth"}})};
  add_batch_norm(norm.refused, 2);
  check(norm);

  Accepted se{"depthwise_bn_se",
              with_norm(kSame),
              {x, w, vector, vector, f32(2, 6), f32(2), f32(6, 2), vector},
              refused({{{{"rate", 0.5}}, {}, "no stochastic depth and no pooled output"},
                       {{{"pool", 1}}, {}, "no stochastic depth and no pooled output"}})};
  add_batch_norm(se.refused, 2);
  add_squeeze(se.refused, 4);
  check(se);

  Accepted inference{
      "depthwise_se", kSame, {x, w, vector, f32(2, 6), f32(2), f32(6, 2), vector}, refused(bias)};
  add_squeeze(inference.refused, 3);
  check(inference);
}

TEST(OpRefusal, WholeBlocks) {
  Accepted block{"mbconv",
                 Attrs(kSame).set("residual", 1).set("act", 1),
                 {f32(2, 5, 6, 4), f32(6, 1, 1, 4), f32(6), f32(3, 3, 6), f32(6), f32(4, 1, 1, 6), f32(4),
                  f32(2, 6), f32(2), f32(6, 2), f32(6)},
                 {{{}, {{0, f32(2, 30, 4)}}, "x must be (N,H,W,C), not f32(2,30,4)"},
                  {{}, {{3, f32(9, 6)}}, "w_depthwise must be (kernel,kernel,E), not f32(9,6)"},
                  {{}, {{3, f32(3, 5, 6)}}, "w must be (kernel, kernel, C)"},
                  {{{"kernel", 2}}, {{3, f32(2, 2, 6)}}, "kernel must be odd"},
                  {{}, {{1, f32(6, 1, 1, 5)}}, "w_expand must be (6,1,1,4), not f32(6,1,1,5)"},
                  {{}, {{2, absent}}, "b_expand must be (6), not absent"},
                  {{}, {{2, f32(4)}}, "b_expand must be (6), not f32(4)"},
                  {{}, {{1, absent}, {2, absent}}, "without w_expand"},
                  {{}, {{4, f32(4)}}, "b_depthwise must be (6), not f32(4)"},
                  {{}, {{5, f32(4, 1, 1, 4)}}, "w_project must be (4,1,1,6), not f32(4,1,1,4)"},
                  {{}, {{6, f32(6)}}, "b_project must be (4), not f32(6)"},
                  {{}, {{7, f32(2, 5)}}, "w_squeeze must be (2,6), not f32(2,5)"},
                  {{}, {{8, f32(3)}}, "b_squeeze must be (2), not f32(3)"},
                  {{}, {{9, absent}}, "w_excite must be (6,2), not absent"},
                  {{}, {{9, f32(6, 3)}}, "w_excite must be (6,2), not f32(6,3)"},
                  {{}, {{10, f32(2)}}, "b_excite must be (6), not f32(2)"},
                  {{}, {{7, absent}}, "w_excite without w_squeeze"},
                  {{}, {{5, f32(5, 1, 1, 6)}, {6, f32(5)}}, "the residual x f32(2,5,6,4)"}}};
  for (int i = 1; i < 11; ++i) {
    const bool weights = i == 1 || i == 3 || i == 5;
    TensorSpec other = block.in[i];
    other.dtype = i % 2 ? DType::bf16 : DType::i32;
    block.refused.push_back({{}, {{i, other}}, weights && i == 3 ? "like x" : "has the wrong type"});
  }
  add_conv_attributes(block.refused, "must be in [0, kernel), not -1", "stride must be 1 or 2, not ");
  add_activation(block.refused);
  check(block);
  for (size_t inputs : {6, 12}) {
    Specs other = block.in;
    other.resize(inputs);
    EXPECT_PRED_FORMAT2(testing::IsSubstring, "7 to 11 inputs are wanted, not " + std::to_string(inputs),
                        error_of("mbconv", block.attrs, other));
  }

  Accepted fused{
      "fused_mbconv",
      Attrs(kSame).set("residual", 1).set("act", 1),
      {f32(2, 5, 6, 4), f32(8, 3, 3, 4), f32(8), f32(4, 1, 1, 8), f32(4)},
      {{{}, {{1, f32(8, 3, 3, 5)}}, "weights do not fit"},
       {{}, {{3, f32(4, 1, 1, 6)}}, "w f32(4,1,1,6)"},
       {{}, {{3, bf16(4, 1, 1, 8)}}, "w bf16(4,1,1,8)"},
       {{}, {{2, f32(4)}}, "b_expand must be f32(8), not f32(4)"},
       {{}, {{2, bf16(8)}}, "b_expand must be f32(8), not bf16(8)"},
       {{}, {{4, f32(8)}}, "b_project must be f32(4), not f32(8)"},
       {{}, {{4, bf16(4)}}, "b_project must be f32(4), not bf16(4)"},
       {{}, {{3, f32(5, 1, 1, 8)}, {4, f32(5)}}, "the residual x f32(2,5,6,4) has not the shape of y"}}};
  add_conv_attributes(fused.refused);
  add_activation(fused.refused);
  check(fused);
  EXPECT_PRED_FORMAT2(testing::IsSubstring, "5 inputs are wanted, not 4",
                      error_of("fused_mbconv", fused.attrs, {fused.in.begin(), fused.in.begin() + 4}));
}

TEST(OpRefusal, DenseLayersAndRecurrence) {
  check({"linear",
         {},
         {f32(3, 4), f32(5, 4), f32(5)},
         {{{}, {{0, f32(3, 4, 1)}}, "x must be (N,In) and w (Out,In) of the same dtype; x f32(3,4,1)"},
          {{}, {{1, f32(5, 4, 1)}}, "w f32(5,4,1)"},
          {{}, {{1, f32(4, 5)}}, "w f32(4,5)"},
          {{}, {{1, bf16(5, 4)}}, "w bf16(5,4)"},
          {{}, {{0, i32(3, 4)}, {1, i32(5, 4)}}, "x must be f32 or bf16, not i32(3,4)"},
          {{}, {{2, f32(4)}}, "bias must be f32(5), not f32(4)"},
          {{}, {{2, bf16(5)}}, "bias must be f32(5), not bf16(5)"}}});
  check({"lstm_cell",
         {},
         {f32(3, 20), f32(3, 5)},
         {{{}, {{0, f32(3, 20, 1)}}, "gates f32(3,20,1), c f32(3,5)"},
          {{}, {{1, f32(3, 5, 1)}}, "c f32(3,5,1)"},
          {{}, {{0, f32(2, 20)}}, "gates f32(2,20)"},
          {{}, {{0, f32(3, 15)}}, "gates f32(3,15)"},
          {{}, {{0, bf16(3, 20)}}, "gates bf16(3,20)"},
          {{}, {{1, bf16(3, 5)}}, "c bf16(3,5)"}}});
}

TEST(OpRefusal, Losses) {
  check({"softmax_xent",
         {},
         {f32(4, 3), i32(4), f32(3)},
         {{{}, {{0, f32(4, 1, 3)}}, "logits must be (N, C), got f32(4,1,3)"},
          {{}, {{0, i32(4, 3)}}, "logits must be f32 or bf16, not i32(4,3)"},
          {{}, {{1, i32(3)}}, "targets must be i32 (N) or f32 (N, C) of logits f32(4,3), got i32(3)"},
          {{}, {{1, f32(4)}}, "got f32(4)"},
          {{}, {{1, i32(4, 3)}}, "got i32(4,3)"},
          {{}, {{1, f32(4, 2)}}, "got f32(4,2)"},
          {{}, {{2, f32(4)}}, "one f32 weight per class of f32(4,3), got f32(4)"},
          {{}, {{2, bf16(3)}}, "one f32 weight per class of f32(4,3), got bf16(3)"},
          {{{"smoothing", -0.5}}, {}, "smoothing -0.5"},
          {{{"smoothing", 1.5}}, {}, "smoothing 1.5"}}});
  check({"policy_loss",
         {},
         {f32(4, 3), i32(4), f32(4)},
         {{{}, {{0, f32(12)}}, "logits must be f32 (N, C), got f32(12)"},
          {{}, {{0, bf16(4, 3)}}, "logits must be f32 (N, C), got bf16(4,3)"},
          {{}, {{1, i32(3)}}, "got i32(3) and f32(4)"},
          {{}, {{1, f32(4)}}, "got f32(4) and f32(4)"},
          {{}, {{2, f32(4, 1)}}, "got i32(4) and f32(4,1)"},
          {{}, {{2, bf16(4)}}, "got i32(4) and bf16(4)"},
          {{{"temperature", 0}}, {}, "temperature must be positive"},
          {{{"constant", -1}}, {}, "constant not negative"}}});
  check({"l2_penalty",
         {{"factor", 0.5}},
         {f32(1), bf16(3, 4)},
         {{{}, {{0, f32(2)}}, "the loss must be f32(1), not f32(2)"},
          {{}, {{0, bf16(1)}}, "the loss must be f32(1), not bf16(1)"},
          {{}, {{1, i32(3, 4)}}, "w must be f32 or bf16, not i32(3,4)"}}});
}

TEST(OpRefusal, Optimizers) {
  for (const char* op : {"adam", "sgd"})
    check({op,
           {},
           {f32(9), f32(8), u8(9)},
           {{{}, {{0, bf16(9)}}, "gradients are f32, got bf16(9)"},
            {{}, {{1, f32(7)}}, "eight f32 hyper-parameters, got f32(7)"},
            {{}, {{1, bf16(8)}}, "eight f32 hyper-parameters, got bf16(8)"},
            {{}, {{2, u8(8)}}, "decay mask u8(8) does not fit gradients f32(9)"},
            {{}, {{2, f32(9)}}, "decay mask f32(9) does not fit gradients f32(9)"}}});
  check({"clip_norm",
         {{"limit", 1}},
         {f32(9)},
         {{{}, {{0, bf16(9)}}, "gradients are f32, got bf16(9)"},
          {{{"limit", 0}}, {}, "the limit must be positive, not 0"}}});
  check({"moving_average",
         {},
         {f32(9), f32(1)},
         {{{}, {{0, bf16(9)}}, "parameters are f32, got bf16(9)"},
          {{}, {{1, f32(9)}}, "decay is one number, got f32(9)"},
          {{}, {{1, bf16(1)}}, "decay is one number, got bf16(1)"}}});
}

TEST(OpRefusal, ImagesAndLabels) {
  check({"mix",
         {{"mixup", 0.5}, {"cutmix", 0.5}, {"classes", 3}},
         {f32(2, 5, 6, 3), i32(2)},
         {{{}, {{0, f32(2, 5, 6)}}, "images must be (N, H, W, C), got f32(2,5,6)"},
          {{}, {{0, u8(2, 5, 6, 3)}}, "images must be f32 or bf16, not u8(2,5,6,3)"},
          {{}, {{1, i32(3)}}, "labels must be i32 (N) or f32 (N, 3) of f32(2,5,6,3), got i32(3)"},
          {{}, {{1, f32(2)}}, "got f32(2)"},
          {{}, {{1, f32(2, 4)}}, "got f32(2,4)"},
          {{}, {{1, i32(2, 3)}}, "got i32(2,3)"},
          {{{"classes", 0}}, {}, "classes must be positive, not 0"},
          {{{"mixup", -1}}, {}, "mixup must lie in [0, 1], not -1"},
          {{{"mixup", 2}}, {}, "mixup must lie in [0, 1], not 2"},
          {{{"cutmix", -1}}, {}, "cutmix must lie in [0, 1], not -1"},
          {{{"cutmix", 2}}, {}, "cutmix must lie in [0, 1], not 2"}}});
  check({"normalize",
         {},
         {u8(2, 5, 6, 4)},
         {{{}, {{0, bf16(2, 5, 6, 4)}}, "pixels are f32 or u8, not bf16(2,5,6,4)"},
          {{}, {{0, u8(2, 5, 6, 5)}}, "1 to 4 channels, got u8(2,5,6,5)"},
          {{}, {{0, u8()}}, "1 to 4 channels, got u8()"},
          {{{"std0", 0}}, {}, "std0 must be positive, not 0"},
          {{{"std3", -1}}, {}, "std3 must be positive, not -1"}}});
  EXPECT_EQ(error_of("normalize", {{"std3", 0}}, {u8(2, 5, 6, 3)}), "accepted") << "there is no channel 3";
  const auto record = static_cast<int64_t>(sizeof(AugmentSample));
  check({"augment",
         {{"size", 8}},
         {u8(100), u8(2, record)},
         {{{}, {{0, f32(100)}}, "images are u8 bytes, not f32(100)"},
          {{}, {{0, u8(10, 10)}}, "images are u8 bytes, not u8(10,10)"},
          {{}, {{1, f32(2, record)}}, "samples are u8 (N, "},
          {{}, {{1, u8(2, record, 1)}}, "samples are u8 (N, "},
          {{}, {{1, u8(2, record + 1)}}, "samples are u8 (N, "},
          {{{"size", 0}}, {}, "size 0 is not in 1..4096"},
          {{{"size", 4097}}, {}, "size 4097 is not in 1..4096"},
          {{{"std0", 0}}, {}, "std0 must be positive, not 0"},
          {{{"std2", -1}}, {}, "std2 must be positive, not -1"}}});
}

}  // namespace
}  // namespace gm
