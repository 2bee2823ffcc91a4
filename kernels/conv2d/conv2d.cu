#include "kernels/conv2d/conv2d.h"

#include "kernels/add/add.h"
#include "kernels/common/ceil_div.h"
#include "kernels/common/flat.cuh"
#include "kernels/common/op.h"
#include "kernels/common/partials.cuh"
#include "kernels/conv2d/conv2d_deep.cuh"
#include "kernels/conv2d/conv2d_general.cuh"
#include "kernels/conv2d/conv2d_narrow_weights.cuh"
#include "kernels/conv2d/conv2d_pointwise.cuh"
#ifdef __CUDACC__
#include "kernels/common/cuda_libraries.h"
#include "kernels/common/cuda_trial.h"
#include "kernels/conv2d/conv2d_cudnn.h"
#include "kernels/linear/linear_cublas.h"
#endif

// Who convolves: cuDNN where it has a plan; where it has none or was slower, in bf16, conv2d_narrow.cuh with
// few channels and conv2d_pointwise.cuh or conv2d_deep.cuh at 1x1 (they are candidates beside cuDNN's plans);
// for the rest, or with the attribute `general` 1, conv2d_general.cuh.

namespace gm::GM_BACKEND_NS {

void add_backward(const OpCall&);

namespace {
// Calls f(T{}, std::bool_constant<vector>) for the element type and for channel counts that allow vectors.
template <class F>
void shape_switch(const ConvGeometry& g, F&& f) {
  float_switch(g.dtype, [&](auto zero) {
    if (g.c % 4 == 0 && g.k % 4 == 0) return f(zero, std::true_type{});
    return f(zero, std::false_type{});
  });
}
#ifdef __CUDACC__
// The convolution by cuDNN, what follows it in the same kernel or, a pass more, in ours. False where there is
// no plan.
bool library_forward(const OpCall& c, const ConvGeometry& g, bool fused) {
  const CudnnResult done = cudnn_conv_forward(c, g, fused);
  if (done != CudnnResult::plain) return done == CudnnResult::complete;
  const View residual = conv_residual(c.in);
  float_switch(g.dtype, [&](auto zero) {
    using T = decltype(zero);
    const int64_t n = c.out[0].numel();
    auto launch = [&](auto act, auto lanes) {
      constexpr int V = decltype(lanes)::value;
      GM_LAUNCH((conv2d_epilogue_kernel<T, act.value, V>), flat_grid(n, V, c.ctx), kFlatThreads, 0,
                c.ctx.stream, c.out[0].as<T>(), c.in[2].as<float>(), residual.as<T>(), n,
                static_cast<int>(g.k));
    };
    act_switch(act_of(c.attrs), [&](auto act) {
      if (g.k % kVecLanes<T> == 0) return launch(act, Lanes<kVecLanes<T>>{});
      launch(act, Lanes<1>{});
    });
  });
  return true;
}

constexpr char kApart[] = "apart";  // in the file of plans

// cuDNN compiles kernels with an epilogue at run time; the precompiled ones without may gain more than the
// pass behind them costs, which the clock says.
bool library_forward(const OpCall& c, const ConvGeometry& g) {
  CudaLibraries* const libraries = c.ctx.libraries;
  if (!libraries || !libraries->cudnn) return false;
  if (!c.in[2] && act_of(c.attrs) == Act::none && !conv_residual(c.in)) return library_forward(c, g, false);
  const std::string key = "epilogue of " + plan_key(epilogue_question(c, g));
  if (const std::string* chosen = libraries->choices.find(key))
    return library_forward(c, g, *chosen != kApart);
  if (!library_forward(c, g, true)) return false;
  if (!libraries->timing || being_captured(c.ctx.stream)) return true;
  auto way = [&g](bool fused) {
    return [&g, fused](const OpCall& call) {
      if (!library_forward(call, g, fused)) fail("conv2d: cuDNN has no plan");
    };
  };
  CudaTrial trial(c.ctx.stream);
  const bool apart =
      contender_pays(libraries->choices, key, trial, c, {"fused", way(true)}, {kApart, way(false)});
  return library_forward(c, g, !apart);  // as every later call
}
#endif
// Our kernels for few channels and 1x1 in bf16. False where they do not serve.
bool special_forward(const OpCall& c, const ConvGeometry& g) {
  if (g.dtype != DType::bf16) return false;
  const Bf16Conv t{c.in[0].as<bf16>(),
                   c.in[1].as<bf16>(),
                   c.in[2].as<float>(),
                   act_of(c.attrs),
                   conv_residual(c.in).as<bf16>(),
                   c.out[0].as<bf16>()};
  if (const auto product = pointwise_conv(g))
    launch_pointwise(*product, t, c.ctx);
  else if (const auto deep = deep_conv(g, false))
    launch_deep(*deep, t, nullptr, c.ctx);
  else if (const auto narrow = narrow_forward(g))
    launch_narrow(*narrow, t, c.ctx);
  else
    return false;
  return true;
}
bool special_data(const OpCall& c, const ConvGeometry& g) {
  if (!narrow_data(g)) return false;
  const GradView& dx = c.din[0];
  const Bf16Conv t{c.dout[0].as<bf16>(),
                   c.in[1].as<bf16>(),
                   nullptr,
                   Act::none,
                   dx.mode == GradMode::accumulate ? dx.view.as<bf16>() : nullptr,
                   dx.view.as<bf16>()};
  for (int y0 = 0; y0 < g.stride; ++y0)
    for (int x0 = 0; x0 < g.stride; ++x0) launch_narrow(*narrow_data(g, y0, x0), t, c.ctx);
  return true;
}
bool special_weights(const OpCall& c, const ConvGeometry& g) {
  const auto p = narrow_gradient(g);
  if (!p) return false;
  const GradView& dw = c.din[1];
  launch_narrow_weights(*p, c.in[0].as<bf16>(), c.dout[0].as<bf16>(), static_cast<float*>(c.workspace.data),
                        dw.view.as<float>(), dw.mode == GradMode::accumulate, c.ctx);
  return true;
}

#ifdef __CUDACC__
bool library_weights(const OpCall& c, const ConvGeometry& g) {
  const GradView& dw = c.din[1];
  const bool accumulate = dw.mode == GradMode::accumulate;
  // bf16 1x1: a plain product gives f32 sums in one call, which cuDNN does only by run-time compilation.
  if (g.pointwise() && g.dtype == DType::bf16 &&
      cublas_weight_gradient(c.ctx, {g.out_pixels(), g.c, g.k, DType::bf16}, c.in[0].data, c.dout[0].data,
                             dw.view.as<float>(), accumulate))
    return true;
  const CudnnResult done = cudnn_conv_backward_weights(c, g);
  auto add = [&](auto zero) {
    using T = decltype(zero);
    const int64_t n = g.weights();
    GM_LAUNCH((conv2d_add_gradient_kernel<T>), grid_for(n, 256, c.ctx), 256, 0, c.ctx.stream,
              static_cast<const T*>(c.workspace.data), dw.view.as<float>(), n, accumulate);
  };
  if (done == CudnnResult::sums_f32) add(float{});
  if (done == CudnnResult::sums_bf16) add(bf16{});
  return done != CudnnResult::nothing;
}
#endif
}  // namespace

void conv2d_forward(const OpCall& c) {
  const ConvGeometry geometry = conv_geometry(c.attrs, c.in[0], c.in[1]);
#ifdef __CUDACC__
  if (library_forward(c, geometry)) return;
#endif
  if (!c.attrs.geti("general", 0) && special_forward(c, geometry)) return;
  const ConvProblem g = conv_problem(geometry);
  const View residual = conv_residual(c.in);
  shape_switch(geometry, [&](auto zero, auto vector) {
    using T = decltype(zero);
    act_switch(act_of(c.attrs), [&](auto act) {
      GM_LAUNCH((conv2d_forward_kernel<T, vector.value, act.value>), dim3(tiles(g.out_pixels), tiles(g.k)),
                kTileThreads, 0, c.ctx.stream, g, c.in[0].as<T>(), c.in[1].as<T>(), c.in[2].as<float>(),
                residual.as<T>(), c.out[0].as<T>());
    });
  });
}

// Workspace: partial dw of every slice, then partial dbias of every slice.
void conv2d_backward(const OpCall& c) {
  if (act_of(c.attrs) != Act::none) fail("conv2d: no gradient through the activation epilogue");
  residual_backward(add_backward, c, 3);
  const ConvGeometry geometry = conv_geometry(c.attrs, c.in[0], c.in[1]);
  const GradView &dx = c.din[0], &dw = c.din[1], &dbias = c.din[2];
  const bool special = !c.attrs.geti("general", 0);
  bool data_done = !dx, weights_done = !dw;
#ifdef __CUDACC__
  data_done = data_done || cudnn_conv_backward_data(c, geometry) == CudnnResult::complete;
  weights_done = weights_done || library_weights(c, geometry);
#endif
  data_done = data_done || (special && special_data(c, geometry));
  weights_done = weights_done || (special && special_weights(c, geometry));
  const ConvProblem g = conv_problem(geometry);
  const ConvSlices slices = conv_slices(geometry);
  float* partials = static_cast<float*>(c.workspace.data);
  shape_switch(geometry, [&](auto zero, auto vector) {
    using T = decltype(zero);
    const T* dy = c.dout[0].as<T>();
    if (!data_done)
      GM_LAUNCH((conv2d_backward_data_kernel<T, vector.value>), dim3(tiles(g.in_pixels), tiles(g.c)),
                kTileThreads, 0, c.ctx.stream, g, dy, c.in[1].as<T>(), dx.view.as<T>(),
                dx.mode == GradMode::accumulate);
    if (!weights_done) {
      GM_LAUNCH((conv2d_backward_weights_kernel<T, vector.value>),
                dim3(tiles(g.k), tiles(g.taps), slices.count), kTileThreads, 0, c.ctx.stream, g,
                c.in[0].as<T>(), dy, partials, slices.pixels);
      launch_sum_partials(partials, geometry.weights(), slices.count, dw.view.as<float>(),
                          dw.mode == GradMode::accumulate, c.ctx);
    }
    if (dbias) {
      float* bias_partials = partials + slices.count * geometry.weights();
      GM_LAUNCH((column_sums_kernel<T>), dim3(unsigned(ceil_div(g.k, 32)), slices.count), dim3(32, 8), 0,
                c.ctx.stream, dy, g.out_pixels, g.k, slices.pixels, bias_partials);
      launch_sum_partials(bias_partials, g.k, slices.count, dbias.view.as<float>(),
                          dbias.mode == GradMode::accumulate, c.ctx);
    }
  });
}

}  // namespace gm::GM_BACKEND_NS
