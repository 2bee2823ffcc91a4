// Whether an expanding 1x1 convolution is one with its batch norm. Its own kernels move less, the libraries'
// products are the better ones: the clock decides, once for a pass, a shape and a card, and the choice is
// kept with those among the libraries' plans. Without libraries there is no doubt; where nothing may be timed
// now there is no choice, and the two steps follow one another.
#pragma once
#ifdef __CUDACC__
#include <memory>
#include <string>
#include <vector>

#include "kernels/common/cuda_libraries.h"
#include "kernels/common/cuda_timing.h"
#endif
#include "kernels/common/op.h"
#include "kernels/conv_bn_act/expand.h"

namespace gm::GM_BACKEND_NS {

#ifdef __CUDACC__
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
  // What a call adds to goes to memory of the trial's own, so that nothing is added twice.
  std::vector<GradView> din(c.din.begin(), c.din.end());
  std::vector<View> state(c.state.begin(), c.state.end());
  std::vector<View*> own;
  for (GradView& grad : din)
    if (grad) own.push_back(&grad.view);
  for (View& view : state)
    if (view) own.push_back(&view);
  std::vector<std::unique_ptr<CudaScratch>> memory;
  for (View* view : own) {
    memory.push_back(std::make_unique<CudaScratch>(view->spec.bytes()));
    view->data = memory.back()->data();
    if (!view->data) return false;
  }
  const OpCall trial{.attrs = c.attrs,
                     .in = c.in,
                     .out = c.out,
                     .saved = c.saved,
                     .state = state,
                     .dout = c.dout,
                     .din = din,
                     .workspace = c.workspace,
                     .ctx = c.ctx};
  const size_t best = fastest_candidate(time_candidates(c.ctx.stream, 2, [&](size_t i) {
    i == 0 ? apart(trial) : joint(trial);
    return true;
  }));
  libraries->choices.set(problem, best == 1 ? kJoint : kApart);
  return best == 1;
}
#else
// The test device has the shared memory of the smallest card.
template <class Apart, class Joint>
bool joint_pays(const OpCall&, const char*, const Expansion&, size_t shared_bytes, Apart, Joint) {
  return shared_bytes <= kSmallestShared;
}
#endif

}  // namespace gm::GM_BACKEND_NS
