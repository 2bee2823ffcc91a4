#include "kernels/channel_scale_conv2d/scaled_steps.h"

// The two steps: a processor gains nothing by more.

namespace gm::GM_CPU_NS {

void channel_scale_forward(const OpCall&);
void conv2d_forward(const OpCall&);

void channel_scale_conv2d_forward(const OpCall& c) {
  scaled_conv_steps(c, channel_scale_forward, conv2d_forward);
}

}  // namespace gm::GM_CPU_NS
