// Whether an expanding 1x1 convolution is one with its batch norm. Its own kernels move less, the libraries'
// products are the better ones: the clock decides, once for a pass, a shape and a card, and the choice is
// kept with those among the libraries' plans. Without libraries there is no doubt; where nothing may be timed
// now there is no choice, and the two steps follow one another. A result that is not theirs is never used.
#pragma once
#ifdef __CUDACC__
#include <algorithm>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "kernels/common/cuda_libraries.h"
#include "kernels/common/cuda_results.h"
#include "kernels/common/cuda_timing.h"
#endif
#include "kernels/common/op.h"
#include "kernels/conv_bn_act/expand.h"

namespace gm::GM_BACKEND_NS {

#ifdef __CUDACC__
/// A call to be made several times: gradients and running statistics lie in memory of its own, so that
/// nothing is added twice.
class ExpansionTrial {
 public:
  explicit ExpansionTrial(const OpCall& c)
      : c_(c), din_(c.din.begin(), c.din.end()), state_(c.state.begin(), c.state.end()) {
    for (GradView& grad : din_) {
      grad.mode = GradMode::overwrite;
      own(grad.view);
      results_.push_back(grad.view);
    }
    for (View& view : state_) own(view);
    results_.insert(results_.end(), c.out.begin(), c.out.end());
    if (c.dout.empty()) results_.insert(results_.end(), c.saved.begin(), c.saved.end());
    std::erase_if(results_, [](const View& view) { return !view; });
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
    for (const View& view : results_) values.push_back(first_and_last(view, c_.ctx.stream));
    return values;
  }
  /// NaN, where then nothing is written.
  void clear_results() const {
    for (const View& view : results_)
      cudaMemsetAsync(view.data, 0xFF, view.spec.bytes(), static_cast<cudaStream_t>(c_.ctx.stream));
  }

 private:
  void own(View& view) {
    if (!view) return;
    memory_.push_back(std::make_unique<CudaScratch>(view.spec.bytes()));
    view.data = memory_.back()->data();
    has_room_ = has_room_ && view.data;
  }

  const OpCall& c_;
  std::vector<GradView> din_;
  std::vector<View> state_, results_;
  std::vector<std::unique_ptr<CudaScratch>> memory_;
  bool has_room_ = true;
};

/// True where a call is to be done by the kernels of an expansion rather than by the two steps; apart, joint:
/// the call done either way.
template <class Apart, class Joint>
bool joint_pays(const OpCall& c, const char* pass, const Expansion& p, size_t shared_bytes, Apart apart,
                Joint joint) {
  int device = 0, most = 0;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  if (shared_bytes > static_cast<size_t>(most)) return false;
  CudaLibraries* const libraries = c.ctx.libraries;
  if (!libraries) return true;
  const std::string problem = std::string(pass) + " of 1x1 convolution with batch norm, bf16, " +
                              std::to_string(p.pixels) + " x " + std::to_string(p.c) + " -> " +
                              std::to_string(p.k);
  static const char kJoint[] = "joint", kApart[] = "apart";
  if (const std::string* chosen = libraries->choices.find(problem)) return *chosen == kJoint;
  if (!libraries->timing || being_captured(c.ctx.stream)) return false;
  const ExpansionTrial trial(c);
  if (!trial.has_room()) return false;
  const OpCall call = trial.call();
  bool pays = 1 == fastest_candidate(time_candidates(c.ctx.stream, 2, [&](size_t i) {
                try {
                  i == 0 ? apart(call) : joint(call);
                  return true;
                } catch (const Error&) {
                  if (i == 0) throw;
                  return false;  // a launch that was refused
                }
              }));
  if (pays) {
    apart(call);
    const auto want = trial.results();
    trial.clear_results();
    joint(call);
    const auto got = trial.results();
    double off = 0;
    for (size_t i = 0; i < want.size(); ++i) off = std::max(off, relative_difference(got[i], want[i]));
    pays = off <= kWrong;
    if (!pays)
      std::fprintf(stderr, "%s: result of one kernel off by %.2g of its size; not used\n", problem.c_str(),
                   off);
  }
  libraries->choices.set(problem, pays ? kJoint : kApart);
  return pays;
}
#else
// The test device has the shared memory of the smallest card.
template <class Apart, class Joint>
bool joint_pays(const OpCall&, const char*, const Expansion&, size_t shared_bytes, Apart, Joint) {
  return shared_bytes <= kSmallestShared;
}
#endif

}  // namespace gm::GM_BACKEND_NS
