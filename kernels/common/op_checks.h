// What the descriptions of many ops refuse, each in one line that names the op, the input, what it must be
// and what came.
#pragma once
#include <span>
#include <string>

#include "kernels/common/attrs.h"
#include "kernels/common/view.h"

namespace gm {

/// Throws unless the input is f32 or bf16.
inline void check_float(const std::string& op, const char* input, const TensorSpec& got) {
  if (got.dtype != DType::f32 && got.dtype != DType::bf16)
    fail(op + ": " + input + " must be f32 or bf16, not " + got.str());
}
/// Throws unless the input is f32 or bf16 and has channels.
inline void check_normalised(const std::string& op, const TensorSpec& x) {
  if (x.shape.rank == 0) fail(op + ": x must be (..., C), not " + x.str());
  check_float(op, "x", x);
}
/// Throws unless the input is f32 of this shape.
inline void check_f32(const std::string& op, const char* input, const TensorSpec& got, const Shape& shape) {
  if (got.dtype != DType::f32 || got.shape != shape)
    fail(op + ": " + input + " must be " + TensorSpec{shape, DType::f32}.str() + ", not " + got.str());
}
/// The same for input k of a list that may end before it or leave it out.
inline void check_optional_f32(const std::string& op, const char* input, std::span<const TensorSpec> in,
                               size_t k, const Shape& shape) {
  if (in.size() > k && in[k].shape.rank) check_f32(op, input, in[k], shape);
}
/// Throws unless the attribute `act` is an activation (defined beside the op `activation`).
void check_act(const std::string& op, const Attrs& attrs);
/// "-0.25": a number in a message, as attributes are written.
inline std::string number_text(double value) { return Attrs{{"", value}}.str().substr(1); }
/// Throws unless the attribute, 1 where it is not given, is positive.
inline void check_positive(const std::string& op, const Attrs& attrs, const std::string& key) {
  if (!(attrs.get(key, 1) > 0))
    fail(op + ": " + key + " must be positive, not " + number_text(attrs.get(key)));
}

}  // namespace gm
