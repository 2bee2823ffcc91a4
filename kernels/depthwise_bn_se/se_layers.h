// The two layers of squeeze-and-excitation in the descriptions of the ops that hold them: four inputs in a
// row,
//   w_squeeze (S, C), b_squeeze (S), w_excite (C, S), b_excite (C), all f32, the biases optional.
#pragma once
#include "kernels/activation/activation.h"
#include "kernels/common/op.h"

namespace gm {

/// Throws gm::Error with the op's name when in[first] ... in[first + 3] do not fit `channels`.
void check_se_layers(const char* op, std::span<const TensorSpec> in, size_t first, int64_t channels);
/// CPU: workspace of `linear`, the larger of the two layers, for so many images.
size_t se_linear_workspace(Pass pass, std::span<const TensorSpec> in, size_t first, int64_t images);
/// The unfused rest of a composition, from the activated tensor "a" to "out0"; the layers are inputs from
/// `first` on.
void add_se_steps(std::vector<CompositionStep>& steps, Act act, size_t first);

}  // namespace gm
