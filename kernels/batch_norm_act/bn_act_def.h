// What the descriptions of batch_norm_act, conv_bn_act, depthwise_bn_act and depthwise_bn_se share:
// everything that follows the tensor a batch norm normalises.
#pragma once
#include <array>

#include "kernels/batch_norm_act/batch_norm_act.h"
#include "kernels/common/op.h"

namespace gm {

/// (y) or (y, pooled) for a BN output of this shape. Throws when it cannot be pooled, when the residual (null
/// or empty: none) does not fit, when the rate of stochastic depth is not in [0, 1).
Specs bn_act_outputs(const char* op, const Attrs& attrs, const TensorSpec& y,
                     const TensorSpec* residual = nullptr);
/// What is saved of the batch norm: mean, inv_std and, with stochastic depth, the factor of every image.
Specs bn_act_saved(const Attrs& attrs, const TensorSpec& y);
/// Input k of a list that may end before it; null when it is not given.
const TensorSpec* bn_act_residual(std::span<const TensorSpec> in, size_t k);

/// Bytes and FLOPs from the tensor in memory on. Forward: it is read once more after its statistics, y
/// written. Backward: it and dy are read twice; the residual's gradient is dy, in place.
Cost bn_act_cost(Pass pass, const TensorSpec& y, bool residual = false);
/// What backward reads: `first` and, for the activation's slope, beta behind gamma.
BackwardReads bn_act_reads(const Attrs& attrs, std::vector<int> first);
/// The unfused steps from value `x` on; gamma is input number `gamma` of the fused op, then beta, residual.
std::vector<CompositionStep> bn_act_steps(const Attrs& attrs, std::span<const TensorSpec> in,
                                          const std::string& x, size_t gamma);

/// What test cases vary behind the normalised tensor.
struct BnActCase {
  Act act = Act::silu;
  bool pool = false, training = true, large = false;
  bool residual = false;
  double rate = 0;  // of stochastic depth
};
/// attrs and in: what stands before the batch norm; gamma, beta and, for ops that take one, the residual are
/// added. y: the BN's output.
OpCase bn_act_case(const Attrs& attrs, std::vector<CaseInput> in, const TensorSpec& y, const BnActCase& c,
                   bool takes_residual);
/// The same behind a convolution with weights w and result yc. pad: top, left, bottom, right.
OpCase conv_bn_act_case(const TensorSpec& x, const TensorSpec& w, int stride, std::array<int, 4> pad,
                        BnActCase c, bool takes_residual);

}  // namespace gm
