#include "kernels/common/contender.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "kernels/common/cuda_results.h"

namespace gm {

namespace {

/// A call that may be made several times.
class Trial {
 public:
  Trial(const OpCall& c, TrialDevice& device)
      : c_(c), device_(device), din_(c.din.begin(), c.din.end()), state_(c.state.begin(), c.state.end()) {
    for (GradView& grad : din_) {
      if (!grad) continue;  // nobody wants it
      grad.mode = GradMode::overwrite;
      own(grad.view);
      results_.push_back(grad.view);
    }
    for (size_t i = 0; i < state_.size(); ++i)
      if (state_[i]) {
        own(state_[i]);
        if (has_room_) device.copy(state_[i].data, c.state[i].data, state_[i].spec.bytes());
      }
    if (c.dout.empty())  // backward writes neither
      for (const auto& written : {c.out, c.saved})
        for (const View& view : written)
          if (view) results_.push_back(view);
  }
  bool has_room() const { return has_room_; }
  OpCall call() const {
    return {.attrs = c_.attrs,
            .in = c_.in,
            .out = c_.out,
            .saved = c_.saved,
            .state = state_,
            .dout = c_.dout,
            .din = din_,
            .workspace = c_.workspace,
            .ctx = c_.ctx};
  }
  std::vector<std::vector<float>> results() const {
    std::vector<std::vector<float>> values;
    for (const View& view : results_) values.push_back(device_.read(view));
    return values;
  }
  void spoil_results() const {
    for (const View& view : results_) device_.spoil(view);
  }

 private:
  void own(View& view) {
    view.data = device_.allocate(view.spec.bytes());
    has_room_ = has_room_ && view.data;
  }

  const OpCall& c_;
  TrialDevice& device_;
  std::vector<GradView> din_;
  std::vector<View> state_, results_;
  bool has_room_ = true;
};

bool finite(const std::vector<std::vector<float>>& tensors) {
  return std::all_of(tensors.begin(), tensors.end(), [](const auto& values) {
    return std::all_of(values.begin(), values.end(), [](float v) { return std::isfinite(v); });
  });
}

}  // namespace

bool contender_pays(PlanChoices& choices, const std::string& problem, TrialDevice& device, const OpCall& c,
                    const Way& trusted, const Way& contender) {
  if (const std::string* chosen = choices.find(problem)) return *chosen == contender.name;
  const Trial trial(c, device);
  if (!trial.has_room()) return choices.choose_for_now(problem, trusted.name), false;
  const OpCall call = trial.call();
  bool pays = 1 == fastest_candidate(device.time(2, [&](size_t i) {
                try {
                  (i == 0 ? trusted : contender).run(call);
                  return true;
                } catch (const Error&) {
                  if (i == 0) throw;
                  return false;  // a launch that was refused
                }
              }));
  if (pays) {
    trusted.run(call);
    const auto want = trial.results();
    if (!finite(want)) return choices.choose_for_now(problem, trusted.name), false;
    trial.spoil_results();
    contender.run(call);
    const auto got = trial.results();
    double off = 0;
    for (size_t i = 0; i < want.size(); ++i) off = std::max(off, relative_difference(got[i], want[i]));
    pays = off <= kWrong;
    if (!pays)
      std::fprintf(stderr, "%s: result of %s off by %.2g of its size; not used\n", problem.c_str(),
                   contender.name, off);
  }
  choices.choose(problem, pays ? contender.name : trusted.name);
  return pays;
}

}  // namespace gm
