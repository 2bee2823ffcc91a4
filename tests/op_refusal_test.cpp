// What ops refuse that hold no convolution: see op_refusal.h.
#include "tests/op_refusal.h"
#include "kernels/augment/augment.h"

namespace gm::test {
namespace {

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
}  // namespace gm::test
