#include <cmath>

#include "kernels/common/op.h"
#include "kernels/common/parallel.h"

namespace gm::GM_CPU_NS {

namespace {
// Plain libm: this op is too small for its speed to matter.
float sigmoid(float x) { return 1.f / (1.f + std::exp(-x)); }
void put(float* d, bool accumulate, float value) { *d = accumulate ? *d + value : value; }
}  // namespace

void lstm_cell_forward(const OpCall& c) {
  const int64_t width = c.in[1].shape()[1];
  const float *gates = c.in[0].as<float>(), *state = c.in[1].as<float>();
  float *h = c.out[0].as<float>(), *next = c.out[1].as<float>();
  c.ctx.pool->ranges(c.in[1].numel(), 2048, [&](int64_t begin, int64_t end, int) {
    for (int64_t at = begin; at < end; ++at) {
      const float* g = gates + 4 * (at / width) * width + at % width;
      next[at] = sigmoid(g[width]) * state[at] + sigmoid(g[0]) * std::tanh(g[2 * width]);
      h[at] = sigmoid(g[3 * width]) * std::tanh(next[at]);
    }
  });
}

void lstm_cell_backward(const OpCall& c) {
  const int64_t width = c.in[1].shape()[1];
  const float *gates = c.in[0].as<float>(), *state = c.in[1].as<float>(), *next = c.out[1].as<float>();
  const float *dh_all = c.dout[0].as<float>(), *dc_all = c.dout[1].as<float>();
  float *dgates = c.din[0].view.as<float>(), *dstate = c.din[1].view.as<float>();
  const bool add_gates = c.din[0].mode == GradMode::accumulate,
             add_state = c.din[1].mode == GradMode::accumulate;
  c.ctx.pool->ranges(c.in[1].numel(), 1024, [&](int64_t begin, int64_t end, int) {
    for (int64_t at = begin; at < end; ++at) {
      const int64_t gate = 4 * (at / width) * width + at % width;
      const float* g = gates + gate;
      const float i = sigmoid(g[0]), f = sigmoid(g[width]), t = std::tanh(g[2 * width]),
                  o = sigmoid(g[3 * width]);
      const float shown = std::tanh(next[at]);
      const float dh = dh_all ? dh_all[at] : 0.f, dc = dc_all ? dc_all[at] : 0.f;
      const float e = dc + dh * o * (1 - shown * shown);
      if (c.din[0]) {
        put(dgates + gate, add_gates, e * t * i * (1 - i));
        put(dgates + gate + width, add_gates, e * state[at] * f * (1 - f));
        put(dgates + gate + 2 * width, add_gates, e * i * (1 - t * t));
        put(dgates + gate + 3 * width, add_gates, dh * shown * o * (1 - o));
      }
      if (c.din[1]) put(dstate + at, add_state, e * f);
    }
  });
}

}  // namespace gm::GM_CPU_NS
