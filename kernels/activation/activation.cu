#include "kernels/activation/activation.h"

#include "kernels/common/act.cuh"
#include "kernels/common/flat.cuh"
#include "kernels/common/op.h"
#include "kernels/common/simt.h"

namespace gm::GM_BACKEND_NS {

// One thread per element of a grid stride; memory-bound, neighbouring threads read neighbouring elements.
template <class T, Act A>
__global__ void activation_forward_kernel(const T* x, T* y, int64_t n) {
  await_launch_before();
  for (int64_t i = blockIdx.x * int64_t{blockDim.x} + threadIdx.x; i < n;
       i += int64_t{gridDim.x} * blockDim.x)
    y[i] = from_float<T>(act_value<A, T>(to_float(x[i])));
}

template <class T, Act A>
__global__ void activation_backward_kernel(const T* x, const T* dy, T* dx, int64_t n, bool accumulate) {
  await_launch_before();
  for (int64_t i = blockIdx.x * int64_t{blockDim.x} + threadIdx.x; i < n;
       i += int64_t{gridDim.x} * blockDim.x) {
    const float g = to_float(dy[i]) * act_slope<A, T>(to_float(x[i]));
    dx[i] = from_float<T>(accumulate ? to_float(dx[i]) + g : g);
  }
}

void activation_forward(const OpCall& c) {
  const int64_t n = c.in[0].numel();
  float_switch(c.in[0].dtype(), [&](auto zero) {
    using T = decltype(zero);
    act_switch(act_of(c.attrs), [&](auto act) {
      GM_LAUNCH((activation_forward_kernel<T, act.value>), grid_for(n, 256, c.ctx), 256, 0, c.ctx.stream,
                c.in[0].as<T>(), c.out[0].as<T>(), n);
    });
  });
}

void activation_backward(const OpCall& c) {
  const int64_t n = c.in[0].numel();
  float_switch(c.in[0].dtype(), [&](auto zero) {
    using T = decltype(zero);
    act_switch(act_of(c.attrs), [&](auto act) {
      GM_LAUNCH((activation_backward_kernel<T, act.value>), grid_for(n, 256, c.ctx), 256, 0, c.ctx.stream,
                c.in[0].as<T>(), c.dout[0].as<T>(), c.din[0].view.as<T>(), n,
                c.din[0].mode == GradMode::accumulate);
    });
  });
}

}  // namespace gm::GM_BACKEND_NS
