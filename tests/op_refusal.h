// What the descriptions of ops refuse: inputs and attributes that do not fit, before a kernel reads past
// them. Each op is given once as it is accepted; each case changes one thing and says what the error must
// name.
#pragma once
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "kernels/common/op.h"

namespace gm::test {

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
inline const TensorSpec absent;

inline std::string error_of(const char* op, const Attrs& attrs, const Specs& in) {
  try {
    find_op(op).infer(attrs, in);
  } catch (const Error& e) {
    return e.what();
  }
  return "accepted";
}

inline void check(const Accepted& accepted) {
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
inline void add_conv_attributes(std::vector<Refused>& refused, const char* pads = "paddings not negative",
                                const char* strides = "stride must be positive") {
  for (const char* pad : {"pad_top", "pad_left", "pad_bottom", "pad_right"})
    refused.push_back({{{pad, -1}}, {}, pads});
  for (int stride : {0, -1}) refused.push_back({{{"stride", stride}}, {}, strides});
}
/// gamma is input k, of six channels.
inline void add_batch_norm(std::vector<Refused>& refused, int k) {
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
inline void add_activation(std::vector<Refused>& refused) {
  refused.push_back({{{"act", 5}}, {}, "unknown activation 5"});
  refused.push_back({{{"act", -1}}, {}, "unknown activation -1"});
}
/// Behind a convolution: w_squeeze is input k; two of six channels.
inline void add_squeeze(std::vector<Refused>& refused, int k) {
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

inline const Attrs kSame{{"kernel", 3},   {"stride", 1},     {"pad_top", 1},
                         {"pad_left", 1}, {"pad_bottom", 1}, {"pad_right", 1}};
inline Attrs with_norm(Attrs a) {
  return a.set("eps", 1e-3).set("momentum", 0.9).set("training", 1).set("act", 1);
}

}  // namespace gm::test
