// Whether an expanding 1x1 convolution is one with its batch norm. Its own kernels move less, the libraries'
// products are the better ones: on a card the two compete (kernels/common/contender.h). Without libraries
// there is no doubt; where nothing may be timed now there is no choice, and the two steps follow one another.
#pragma once
#ifdef __CUDACC__
#include "kernels/common/cuda_libraries.h"
#include "kernels/common/cuda_trial.h"
#endif
#include "kernels/common/op.h"
#include "kernels/conv_bn_act/expand.h"

namespace gm::GM_BACKEND_NS {

#ifdef __CUDACC__
/// True where a call is to be done by the kernels of an expansion rather than by the two steps; apart, joint:
/// the call done either way.
template <class Apart, class Joint>
bool joint_pays(const OpCall& c, const Pointwise& p, size_t shared_bytes, Apart apart, Joint joint) {
  int device = 0, most = 0;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  if (shared_bytes > static_cast<size_t>(most)) return false;
  CudaLibraries* const libraries = c.ctx.libraries;
  if (!libraries) return true;
  const std::string key = expansion_key(c, p);
  if (!libraries->choices.find(key) && (!libraries->timing || being_captured(c.ctx.stream))) return false;
  CudaTrial trial(c.ctx.stream);
  return contender_pays(libraries->choices, key, trial, c, {"apart", apart}, {"joint", joint});
}
#else
// The test device has the shared memory of the smallest card.
template <class Apart, class Joint>
bool joint_pays(const OpCall&, const Pointwise&, size_t shared_bytes, Apart, Joint) {
  return shared_bytes <= kSmallestShared;
}
#endif

}  // namespace gm::GM_BACKEND_NS
