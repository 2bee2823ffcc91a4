// Whether a new way of doing a call takes the place of a trusted one on a card: it has to be the faster one
// by the clock, and its first results have to be the same. Decided once for a problem and kept with the
// libraries' plans. Free of CUDA: memory and clock are the caller's (kernels/common/cuda_trial.h), so that
// tests can play a card.
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "kernels/common/op.h"
#include "kernels/common/plan_choice.h"

namespace gm {

/// Memory and clock of the device that the operands of a call lie on.
class TrialDevice {
 public:
  virtual ~TrialDevice() = default;
  /// As long as this object lives; null where there is no room.
  virtual void* allocate(size_t bytes) = 0;
  virtual void copy(void* to, const void* from, size_t bytes) = 0;
  /// Fills a tensor with NaN: what then is not written shows.
  virtual void spoil(const View& tensor) = 0;
  /// Elements of a tensor, of a large one its ends.
  virtual std::vector<float> read(const View& tensor) = 0;
  /// Seconds of `count` candidates: time_candidates of kernels/common/cuda_timing.h.
  virtual std::vector<double> time(size_t count, const std::function<bool(size_t)>& start) = 0;
};

/// One way of doing a call. It may throw gm::Error where its launch is refused.
struct Way {
  const char* name;  // in the file of plans
  std::function<void(const OpCall&)> run;
};

/// True where the problem is to be done in the contender's way from now on. Without a choice among `choices`
/// both ways are tried on the call: gradients and running statistics lie in memory of their own meanwhile, so
/// that nothing is added twice; outputs and saved tensors of a forward call are left to be written. Where
/// nothing can be learnt, for lack of room or because results are not finite, the trusted way is taken until
/// the process ends.
bool contender_pays(PlanChoices& choices, const std::string& problem, TrialDevice& device, const OpCall& c,
                    const Way& trusted, const Way& contender);

}  // namespace gm
