// The CPU's workspace, shared by the description and the kernels: weights in the form the inner loops want.
#pragma once
#include "kernels/common/ceil_div.h"
#include "kernels/mbconv/mbconv.h"

namespace gm {

/// Offsets in floats: packed w_expand, packed w_project (pack_b pads to at most 16 columns), w_depthwise in
/// f32.
struct MbCpuWorkspace {
  size_t project = 0, depthwise = 0, bytes = 0;
};
inline MbCpuWorkspace mb_cpu_workspace(const MbconvShape& s) {
  auto padded = [](int64_t rows, int64_t columns) {
    return static_cast<size_t>(rows * round_up(columns, 16));
  };
  MbCpuWorkspace w;
  w.project = s.expand ? padded(s.in_channels, s.d.channels) : 0;
  w.depthwise = w.project + padded(s.d.channels, s.out_channels);
  w.bytes = sizeof(float) * (w.depthwise + padded(s.d.taps(), s.d.channels));
  return w;
}

}  // namespace gm
