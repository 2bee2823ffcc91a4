// What convolutions, batch norms behind them and whole blocks refuse: see op_refusal.h.
#include "tests/op_refusal.h"

namespace gm::test {
namespace {

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

}  // namespace
}  // namespace gm::test
