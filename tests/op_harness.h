// Runs one op case on one backend with guard bands round every buffer, against the double-precision
// reference.
#pragma once
#include <string>
#include <vector>

#include "engine/device.h"
#include "kernels/common/op.h"

namespace gm::test {

/// Values of all tensors of one execution, as doubles.
struct Result {
  std::vector<std::vector<double>> out, saved, state, din;
};

/// Inputs of a case, drawn from a seed that is a hash of the case's name: the same on every run. Without
/// values a gradient of an output is null.
struct CaseData {
  Specs in, out, saved, state;
  std::vector<std::vector<double>> in_values, state_values, dout_values, din_start;
  uint64_t seed = 0;  // of the op's own draws
};

std::string case_name(const OpDef& op, const OpCase& c);
CaseData make_data(const OpDef& op, const OpCase& c);

/// Forward, then backward when the op has one. accumulate: gradients are added to din_start. Checks guard
/// bands and that every output element was written (buffers start as NaN); failures are reported through
/// GoogleTest. only: the gradient of this input is the one that is wanted; -1: all.
Result run(Device& device, const OpDef& op, const OpCase& c, const CaseData& data, bool accumulate,
           int only = -1);

/// Same, by the reference in doubles.
Result run_reference(const OpDef& op, const OpCase& c, const CaseData& data, bool accumulate);

/// The unfused composition of a fused op, by the reference in doubles, forward only: outputs and state.
Result run_composition(const OpDef& op, const OpCase& c, const CaseData& data);

/// Compares with |a - b| <= tol * (|b| + rms(b)); exact when tol is 0. Also refuses an all-zero reference for
/// tensors of more than a few elements: such a comparison proves nothing.
void expect_close(const std::vector<double>& got, const std::vector<double>& want, double tolerance,
                  const std::string& what);

/// The case's own tolerance, or the default of its dtype.
double tolerance_of(const OpCase& c);

}  // namespace gm::test
