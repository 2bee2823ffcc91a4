#include "kernels/fused_mbconv/fused_mbconv_steps.h"

// The two convolutions: a processor gains nothing by more.

namespace gm::GM_CPU_NS {

void conv2d_forward(const OpCall&);

void fused_mbconv_forward(const OpCall& c) { fused_mbconv_steps(c, conv2d_forward); }

}  // namespace gm::GM_CPU_NS
