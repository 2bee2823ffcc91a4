// Our own kernels' answer to a question to cuDNN: that of the general ones, which a plan is held against
// before it is trusted, and that of the ones for few channels or 1x1, which is a candidate itself. Free of
// CUDA; the plans are judged in conv2d_verdict_cudnn.cpp.
#pragma once
#include <vector>

#include "kernels/common/op.h"
#include "kernels/conv2d/conv2d_attrs.h"
#include "kernels/conv2d/conv2d_cudnn.h"
#include "kernels/conv2d/conv2d_deep.h"
#include "kernels/conv2d/conv2d_narrow.h"
#include "kernels/conv2d/conv2d_pointwise.h"

namespace gm::cuda {

/// The tensor that a graph writes.
constexpr void* ConvOperands::*result_of(CudnnGraph g) {
  return gradient_of_data(g)      ? &ConvOperands::x
         : gradient_of_weights(g) ? &ConvOperands::w
                                  : &ConvOperands::y;
}
inline int64_t result_values(const CudnnQuestion& q) {
  return gradient_of_data(q.graph)      ? q.g.in_pixels() * q.g.c
         : gradient_of_weights(q.graph) ? q.g.weights()
                                        : q.g.out_pixels() * q.g.k;
}
/// Its element type; our own kernels leave gradients of weights in f32 whatever the graph says.
inline DType result_type(const CudnnQuestion& q) {
  return q.graph >= CudnnGraph::weights_f32 ? DType::f32 : q.g.dtype;
}
inline DType own_result_type(const CudnnQuestion& q) {
  return gradient_of_weights(q.graph) ? DType::f32 : q.g.dtype;
}

/// True where kernels of ours that are no general ones answer the question.
inline bool own_serves(const CudnnQuestion& q) {
  if (gradient_of_weights(q.graph)) return q.graph == CudnnGraph::weights_f32 && narrow_gradient(q.g);
  if (gradient_of_data(q.graph)) return narrow_data(q.g);
  return narrow_forward(q.g) || pointwise_conv(q.g) || deep_conv(q.g, false);
}

/// Runs conv2d of ctx.backend without libraries, with the general kernels only or as conv2d chooses.
/// workspace: bytes of conv_workspace, backward pass.
inline void own_convolution(Context ctx, const CudnnQuestion& q, const ConvOperands& o, void* workspace,
                            bool general) {
  ctx.libraries = nullptr;
  const ConvGeometry& g = q.g;
  const Attrs attrs = conv_attrs(g).set("act", q.act).set("general", general);
  const View x{o.x, {{g.n, g.h, g.w, g.c}, g.dtype}}, w{o.w, {{g.k, g.kernel, g.kernel, g.c}, g.dtype}},
      y{o.y, {{g.n, g.oh, g.ow, g.k}, g.dtype}}, bias{o.bias, {{g.k}, DType::f32}},
      residual{o.residual, y.spec}, scratch{workspace, {}};
  const KernelPair kernels = kernel_table(ctx.backend)[op_index(find_op("conv2d"))];
  if (!gradient_of_data(q.graph) && !gradient_of_weights(q.graph)) {
    const View in[] = {x, w, bias, residual}, out[] = {y};
    return kernels.forward(OpCall{attrs, in, out, {}, {}, {}, {}, scratch, ctx});
  }
  const View in[] = {x, w, View()}, dout[] = {y};
  GradView din[3];
  if (gradient_of_data(q.graph)) {
    const bool add = q.graph == CudnnGraph::backward_data_add;
    din[0] = {x, add ? GradMode::accumulate : GradMode::overwrite};
  } else {
    din[1] = {View{o.w, {w.spec.shape, DType::f32}}, GradMode::overwrite};
  }
  kernels.backward(OpCall{attrs, in, {}, {}, {}, dout, din, scratch, ctx});
}

}  // namespace gm::cuda
