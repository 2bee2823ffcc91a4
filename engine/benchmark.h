// Timing of single ops on a device: the cases marked `large` are the networks' real shapes.
#pragma once
#include <functional>
#include <string>

#include "engine/device.h"
#include "kernels/common/op.h"

namespace gm {

struct Timing {
  double median = 0, p5 = 0, p95 = 0;  // seconds
  int runs = 0;
  Cost cost;  // of one run; zero when not an op
};

/// Calls `run` until `seconds` have passed (at least five times, after two warm-ups) and waits for the device
/// after each. Wall-clock time: on a GPU it contains one launch and one synchronisation.
Timing time_repeated(Device& device, const std::function<void()>& run, double seconds);

/// One op case with normally distributed inputs.
Timing time_op(Device& device, const OpDef& op, const OpCase& c, Pass pass, double seconds);

/// Bytes per second of a device-to-device copy of 256 MiB, read and write counted.
double copy_bandwidth(Device& device, double seconds);

/// "conv2d [kernel=3 ...] f32(8,28,28,64) f32(64,3,3,64)"
std::string case_text(const OpDef& op, const OpCase& c);

}  // namespace gm
