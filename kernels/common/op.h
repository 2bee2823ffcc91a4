// The op rails: one description per op (OpDef) and one call form (OpCall) for every backend.
//
// An op is a folder kernels/<op>/ and one line in kernels/op_list.inc. Tests of conformance, gradients,
// determinism and guard bands and gm_bench walk that list; the planner, backward included, goes by the
// descriptions alone. An op is known by name only where it is put to use: in layers, in data (augment), in
// tools (dropout), and in the engine by the optimizer, DeviceFeed (augment) and the measured ceilings.
#pragma once
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/common/attrs.h"
#include "kernels/common/context.h"
#include "kernels/common/view.h"

namespace gm {

/// What a backward kernel does with a gradient buffer. `none`: nobody wants it, the view is null.
enum class GradMode : uint8_t { none, overwrite, accumulate };

struct GradView {
  View view;
  GradMode mode = GradMode::none;
  explicit operator bool() const { return mode != GradMode::none; }
  float beta() const { return mode == GradMode::accumulate ? 1.f : 0.f; }
};

/// Everything one execution of an op sees. Views not read by a pass (see OpDef::backward_reads) may be null.
struct OpCall {
  const Attrs& attrs;
  std::span<const View> in;       // inputs, in the order of the op's header; optional ones may be null
  std::span<const View> out;      // outputs; written by forward
  std::span<const View> saved;    // written by forward, read by backward; null when no backward follows
  std::span<const View> state;    // read and updated in place: running statistics, optimizer state
  std::span<const View> dout;     // backward: gradients of out; null = zero
  std::span<const GradView> din;  // backward: gradients of in
  View workspace;                 // scratch of at least OpDef::workspace bytes, 256-byte aligned
  const Context& ctx;
};
using OpKernel = void (*)(const OpCall&);

struct Cost {
  double bytes = 0;  // each tensor moved once
  double flops = 0;  // 2 x multiply-accumulates; transcendental = 1
};

enum class Pass : uint8_t { forward, backward };
using Specs = std::vector<TensorSpec>;

/// How a test case fills an input. Tests draw what is said here; timing (engine/op_run.cpp) draws uniform
/// floats of about that size, for `integers` and `rows` as for `normal`, and repeats them in large tensors.
enum class Fill : uint8_t {
  normal,    // N(0, 1)
  scaled,    // N(0, 1 / last extent): weights of a layer, as initialisers draw them
  positive,  // uniform in [0.5, 1.5]: scales, variances
  integers,  // small integers, so that sums are exact: backends must equal the reference bit for bit
  labels,    // i32 class indices below the channel count of input 0
  rows,      // non-negative, each row sums to 1: soft targets
  pixels,    // 0..255
  given,     // CaseInput::given, byte for byte
  absent     // optional input left null
};
struct CaseInput {
  TensorSpec spec;
  Fill fill = Fill::normal;
  std::vector<uint8_t> given = {};  // u8 inputs only: records that random bytes would not make
};
struct OpCase {
  Attrs attrs;
  std::vector<CaseInput> in;
  bool exact = false;    // inputs are integers and every backend must equal the reference exactly (f32)
  double tolerance = 0;  // 0: the default of the op and dtype; otherwise relative, with `why`
  const char* why = "";  // reason for a non-default tolerance
  bool smooth = true;    // false: not differentiable everywhere, finite differences are skipped
  bool large = false;    // real network shape: too slow for the fibers of simt
};

/// One step of the unfused composition of a fused op. Operands: "in0", "out0", "state1" of the fused op or a
/// name given to an earlier result.
struct CompositionStep {
  std::string op;
  Attrs attrs;
  std::vector<std::string> in;
  std::vector<std::string> out;
  std::vector<std::string> state;
};

/// Which tensors the backward kernels read: decides what the planner keeps alive.
struct BackwardReads {
  std::vector<int> in;   // indices into in
  std::vector<int> out;  // indices into out
};

struct OpDef {
  std::string_view name;
  std::string_view summary;  // one line for listings

  /// Output shapes and dtypes; throws gm::Error with the op's name when the inputs do not fit.
  std::function<Specs(const Attrs&, std::span<const TensorSpec> in)> infer;
  /// Extra tensors kept from forward to backward (statistics, masks, conv outputs).
  std::function<Specs(const Attrs&, std::span<const TensorSpec> in)> saved;
  /// Persistent tensors updated in place (running statistics, moments); always f32.
  std::function<Specs(const Attrs&, std::span<const TensorSpec> in)> state;
  /// Scratch bytes of one pass.
  std::function<size_t(Backend, Pass, const Attrs&, std::span<const TensorSpec> in)> workspace;
  std::function<Cost(Pass, const Attrs&, std::span<const TensorSpec> in)> cost;
  std::function<BackwardReads(const Attrs&)> backward_reads;
  std::function<std::vector<OpCase>()> cases;
  /// Fused ops only: the same result from simpler ops. Inputs that are not given have an empty spec.
  std::function<std::vector<CompositionStep>(const Attrs&, std::span<const TensorSpec> in)> composition;

  /// Inputs that get gradients (an index list); the others (labels, masks) never do.
  std::vector<int> differentiable;
  /// Those of them that are parameters: their gradients are f32 whatever the dtype of the input.
  std::vector<int> parameters;
  /// Inputs that may be null.
  std::vector<int> optional;
  /// Forward may write out[0] over this input when nobody needs it afterwards (-1: never).
  int forward_inplace = -1;
  /// Inputs k for which backward may write din[k] over dout[0], the most wanted first.
  std::vector<int> backward_inplace;
};

/// Forward and backward of one op on one backend; null where it does not exist.
struct KernelPair {
  OpKernel forward = nullptr;
  OpKernel backward = nullptr;
};

/// All ops, in the order of op_list.inc.
std::span<const OpDef* const> all_ops();
/// Throws gm::Error for an unknown name.
const OpDef& find_op(std::string_view name);
/// "conv2d [kernel=3 ...] f32(8,28,28,64) f32(64,3,3,64)"
std::string case_text(const OpDef& op, const OpCase& c);
/// Position of an op in all_ops() and in every backend's table.
int op_index(const OpDef& op);

/// The kernels of a backend, parallel to all_ops(). Empty when the backend is not part of this binary.
std::span<const KernelPair> kernel_table(Backend backend);
/// Called once by the library that carries a backend (ref and simt are linked into tests and gm_check only).
void install_kernel_table(Backend backend, std::span<const KernelPair> table);

}  // namespace gm
