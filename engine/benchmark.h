// Timing of single ops on a device, and the rates that nothing on it can exceed.
#pragma once
#include <functional>
#include <string>

#include "engine/op_run.h"

namespace gm {

struct Timing {
  double median = 0, p5 = 0, p95 = 0;  // seconds
  int runs = 0;
  Cost cost;  // of one run; zero when not an op
};

/// Calls `run` until `seconds` have passed (at least five times, after two warm-ups) and waits for the device
/// after each. Wall-clock time: on a GPU it contains one launch and one synchronisation.
Timing time_repeated(Device& device, const std::function<void()>& run, double seconds);

/// The same by the device's own clock, its cache emptied before every run: what a kernel takes whose operands
/// come from memory, as most do in a network.
class ColdTimer {
 public:
  ColdTimer(Device& device, double seconds);
  Timing operator()(const std::function<void()>& run);

 private:
  Device& device_;
  double seconds_;
  Buffer flush_;
};

Timing time_op(ColdTimer& timer, const OpDef& op, OpRun& run, const OpCase& c, Pass pass);

/// What the device reaches at best, measured.
struct Ceilings {
  double copy = 0;                         // bytes a second of a copy, read and write counted
  double matrix_f32 = 0, matrix_bf16 = 0;  // FLOPs a second of a large matrix product
  double smallest = 0;                     // seconds of a kernel with nothing to do, its launch included
  double matrix(DType t) const { return t == DType::bf16 ? matrix_bf16 : matrix_f32; }
  /// Seconds that this much work takes at least.
  double bound(const Cost& c, DType t) const;
};
Ceilings measure_ceilings(Device& device, double seconds);

}  // namespace gm
