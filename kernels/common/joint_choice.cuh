// Whether a convolution is one with what is beside it, its batch norm or a gate. Kernels of our own for both
// move less, the libraries' products are the better ones: on a card the two compete
// (kernels/common/contender.h). Without libraries there is no doubt; where nothing may be timed now there is
// no choice, and the two steps follow one another.
#pragma once
#ifdef __CUDACC__
#include "kernels/common/cuda_libraries.h"
#include "kernels/common/cuda_trial.h"
#endif
#include "kernels/common/card_limits.h"
#include "kernels/common/op.h"
#include "kernels/common/simt.h"

namespace gm::GM_BACKEND_NS {

#ifdef __CUDACC__
/// Of a block on the current device, when its launch asks for it.
inline size_t most_shared_bytes() {
  thread_local int asked = -1;
  thread_local size_t most = 0;
  int device = 0, bytes = 0;
  check_launch(cudaGetDevice(&device), "(its shared memory)", __FILE__, __LINE__);
  if (device == asked) return most;
  check_launch(cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device),
               "(its shared memory)", __FILE__, __LINE__);
  most = static_cast<size_t>(bytes), asked = device;
  return most;
}
/// True where a call is to be done by the joint kernels rather than by the two steps. key: all of the call in
/// one line, for the file of plans; shared_bytes: that a block of the joint kernels takes; apart, joint: the
/// call done either way.
template <class Apart, class Joint>
bool joint_pays(const OpCall& c, const std::string& key, size_t shared_bytes, Apart apart, Joint joint) {
  if (shared_bytes > most_shared_bytes()) return false;
  CudaLibraries* const libraries = c.ctx.libraries;
  if (!libraries) return true;
  if (!libraries->choices.find(key) && (!libraries->timing || being_captured(c.ctx.stream))) return false;
  CudaTrial trial(c.ctx.stream);
  return contender_pays(libraries->choices, key, trial, c, {"apart", apart}, {"joint", joint});
}
#else
// The test device has the shared memory of the smallest card.
template <class Apart, class Joint>
bool joint_pays(const OpCall&, const std::string&, size_t shared_bytes, Apart, Joint) {
  return shared_bytes <= kSmallestShared;
}
#endif

}  // namespace gm::GM_BACKEND_NS
