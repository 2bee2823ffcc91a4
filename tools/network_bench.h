// Times the ops of whole networks at the shapes they have there, next to what the device's memory and
// arithmetic allow at best.
#pragma once
#include <string>
#include <vector>

#include "engine/benchmark.h"
#include "layers/network_cases.h"
#include "tools/model_bench.h"

namespace gm {

struct TimedCase {
  NetworkCase what;
  Pass pass;
  Timing timing;
  double bound;       // seconds at the measured ceilings
  bool memory_bound;  // by those of memory, not of arithmetic

  TimedCase(NetworkCase what, Pass pass, const Timing& timing, const Ceilings& ceilings, DType dtype);
  double share() const { return bound / timing.median; }
};

/// Every distinct op of the network, forward and (in training) backward; only those of `op` unless it is
/// empty. Operands come from memory, not from cache: see ColdTimer.
std::vector<TimedCase> time_network_ops(Device& device, const Architecture& a,
                                        const ModelBenchOptions& options, const Ceilings& ceilings,
                                        const std::string& op = "");

/// A page in Markdown: for every block of the network the bytes and FLOPs of its ops, the time they need at
/// the measured ceilings, the time they take, and what that share of the ceilings would make of the
/// data-sheet rates of other cards.
std::string roofline_page(const std::string& device, const Architecture& a, const ModelBenchOptions& options,
                          const Ceilings& ceilings, const std::vector<TimedCase>& ops, const Timing& step);

}  // namespace gm
