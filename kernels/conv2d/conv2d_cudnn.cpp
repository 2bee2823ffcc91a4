#include "kernels/conv2d/conv2d_cudnn.h"

#include "kernels/conv2d/conv2d_own.h"
#include "kernels/conv2d/conv2d_plans_cudnn.h"

namespace gm::cuda {

using namespace cudnn_graph;

namespace {

bool execute(const OpCall& call, const CudnnQuestion& q, ConvOperands operands) {
  for (const void* p : {operands.x, operands.w, operands.y, operands.bias, operands.residual})
    if (reinterpret_cast<uintptr_t>(p) % kAlignment != 0) return false;  // plans are made for aligned tensors
  ConvolutionPlan* plan = find_plan(call.ctx, q, operands);
  if (!plan) return false;
  if (gradient_of_weights(q.graph) && !plan->adds) operands.residual = nullptr;
  try {
    start(call.ctx, q, plan->answer(), operands);
    return true;
  } catch (const Refusal& refusal) {
    // 2xxx: bad parameter, our own mistake. 5xxx: the CUDA context is in trouble; our kernels would fail too.
    if (const int code = static_cast<int>(refusal.status); code / 1000 == 2 || code / 1000 == 5)
      fail("cuDNN convolution: " + std::string(refusal.what()));
    if (being_captured(call.ctx.stream)) fail("cuDNN refuses capture: " + std::string(refusal.what()));
    plan->failed = true;
    return false;
  }
}

CudnnQuestion question(const OpCall& call, CudnnGraph graph, const ConvGeometry& g) {
  return {.graph = graph, .g = g, .deterministic = call.ctx.deterministic, .tf32 = call.ctx.libraries->tf32};
}
bool usable(const OpCall& call) { return call.ctx.libraries && call.ctx.libraries->cudnn; }

}  // namespace

CudnnQuestion epilogue_question(const OpCall& call, const ConvGeometry& g) {
  CudnnQuestion q = question(call, CudnnGraph::forward_epilogue, g);
  q.bias = static_cast<bool>(call.in[2]);
  q.residual = static_cast<bool>(conv_residual(call.in));
  q.act = act_of(call.attrs);
  return q;
}

CudnnResult cudnn_conv_forward(const OpCall& call, const ConvGeometry& g, bool fused) {
  if (!usable(call)) return CudnnResult::nothing;
  const Act act = act_of(call.attrs);
  void *x = call.in[0].data, *w = call.in[1].data, *y = call.out[0].data, *bias = call.in[2].data,
       *residual = conv_residual(call.in).data;
  const bool epilogue = bias || act != Act::none || residual;
  if (epilogue && fused && execute(call, epilogue_question(call, g), {x, w, y, bias, residual}))
    return CudnnResult::complete;
  if (!execute(call, question(call, CudnnGraph::forward, g), {x, w, y})) return CudnnResult::nothing;
  return epilogue ? CudnnResult::plain : CudnnResult::complete;
}

CudnnResult cudnn_conv_backward_data(const OpCall& call, const ConvGeometry& g) {
  if (!usable(call)) return CudnnResult::nothing;
  const auto graph =
      call.din[0].mode == GradMode::accumulate ? CudnnGraph::backward_data_add : CudnnGraph::backward_data;
  return execute(call, question(call, graph, g), {call.din[0].view.data, call.in[1].data, call.dout[0].data})
             ? CudnnResult::complete
             : CudnnResult::nothing;
}

CudnnResult cudnn_conv_backward_weights(const OpCall& call, const ConvGeometry& g) {
  if (!usable(call)) return CudnnResult::nothing;
  const bool accumulate = call.din[1].mode == GradMode::accumulate;
  void *x = call.in[0].data, *dy = call.dout[0].data, *dw = call.din[1].view.data;
  void* place = accumulate ? call.workspace.data : dw;  // our own kernel adds afterwards
  const bool f32 = g.dtype == DType::f32;
  const CudnnQuestion in_f32 = question(call, f32 ? CudnnGraph::weights_same : CudnnGraph::weights_f32, g);
  void* zeros = nullptr;  // behind the sums where they lie in the workspace
  if (also_as_sum(in_f32)) zeros = static_cast<float*>(call.workspace.data) + (accumulate ? g.weights() : 0);
  // Of an image's three channels only our kernel for few channels has f32 sums.
  if ((f32 || sums_in_f32(g) || own_serves(in_f32)) && execute(call, in_f32, {x, place, dy, nullptr, zeros}))
    return accumulate ? CudnnResult::sums_f32 : CudnnResult::complete;
  if (f32) return CudnnResult::nothing;
  // cuDNN's precompiled kernels round the sums of bf16 problems to bf16.
  return execute(call, question(call, CudnnGraph::weights_same, g), {x, call.workspace.data, dy})
             ? CudnnResult::sums_bf16
             : CudnnResult::nothing;
}

}  // namespace gm::cuda
