#include "kernels/common/onednn.h"

#ifndef GM_HAS_ONEDNN
namespace gm::onednn {
bool available() { return false; }
void conv_forward(const ConvShape&, const void*, const void*, void*) { fail("built without oneDNN"); }
void conv_backward_data(const ConvShape&, const void*, const void*, void*) { fail("built without oneDNN"); }
void conv_backward_weights(const ConvShape&, const void*, const void*, float*) {
  fail("built without oneDNN");
}
void gemm(bool, bool, int64_t, int64_t, int64_t, const float*, int64_t, const float*, int64_t, float, float*,
          int64_t) {
  fail("built without oneDNN");
}
}  // namespace gm::onednn
#else

#endif
