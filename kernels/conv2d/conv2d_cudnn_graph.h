// The operation graph of one question to cuDNN, in its backend C API. Private to conv2d_*cudnn.cpp.
#pragma once
#include <memory>
#include <utility>
#include <vector>

#include "kernels/conv2d/conv2d_cudnn.h"
#include "kernels/conv2d/conv2d_cudnn_engine.h"

namespace gm::cuda::cudnn_graph {

constexpr int64_t kAlignment = 16;  // bytes, of every tensor
enum Uid : int64_t { kX = 1, kW = 2, kY = 3, kBias = 4, kResidual = 5, kVirtual = 6 };

// The descriptors of one operation graph; cuDNN keeps references, so they live as long as the plan.
class Graph {
 public:
  /// handle: of the card it will run on; null for one that is not there.
  Graph(const CudnnQuestion& q, cudnnHandle_t handle) : q_(q) {
    build();
    graph_ = &keep(CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
    if (handle) graph_->set(CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, handle);
    graph_->set(CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, operations_);
    graph_->finalize("operation graph");
  }

  /// Engine configurations in cuDNN's order of preference, filtered by what we accept. Mode A has the fast
  /// ones; FALLBACK (asking costs 10 ms) those that serve nearly everything.
  std::vector<Descriptor> configurations(cudnnBackendHeurMode_t mode, const Descriptor* device,
                                         int64_t workspace_cap) const {
    std::vector<Descriptor> accepted;
    Descriptor heuristic(CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
    heuristic.set(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, *graph_);
    heuristic.set(CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, mode);
    if (device) heuristic.set(CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, *device);
    if (cudnnBackendFinalize(heuristic.raw()) != CUDNN_STATUS_SUCCESS) return accepted;
    for (Descriptor& found : descriptors(heuristic, CUDNN_ATTR_ENGINEHEUR_RESULTS,
                                         CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, 0, "list of engines"))
      if (acceptable(found, workspace_cap)) accepted.push_back(std::move(found));
    return accepted;
  }

 private:
  Descriptor& keep(cudnnBackendDescriptorType_t type) {
    return *kept_.emplace_back(std::make_unique<Descriptor>(type));
  }

  // A tensor with logical dimensions n, c, h, w stored as NHWC (filters: KRSC). f32 scalars per channel are
  // (1, c, 1, 1).
  Descriptor& tensor(int64_t uid, int64_t n, int64_t c, int64_t h, int64_t w, cudnnDataType_t type) {
    Descriptor& d = keep(CUDNN_BACKEND_TENSOR_DESCRIPTOR);
    d.set(CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, uid);
    d.set(CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, type);
    d.set(CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, kAlignment);
    d.set(CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, std::vector<int64_t>{n, c, h, w});
    d.set(CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, std::vector<int64_t>{c * h * w, 1, c * w, c});
    d.set(CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, uid >= kVirtual);
    d.finalize("tensor");
    return d;
  }

  Descriptor& convolution() {
    const ConvGeometry& g = q_.g;
    Descriptor& d = keep(CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR);
    d.set(CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, CUDNN_TYPE_INT64, int64_t{2});
    d.set(CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, CUDNN_DATA_FLOAT);
    d.set(CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, CUDNN_CROSS_CORRELATION);
    d.set(CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, CUDNN_TYPE_INT64, std::vector<int64_t>{g.pad_top, g.pad_left});
    d.set(CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, CUDNN_TYPE_INT64,
          std::vector<int64_t>{g.pad_bottom, g.pad_right});
    d.set(CUDNN_ATTR_CONVOLUTION_DILATIONS, CUDNN_TYPE_INT64, std::vector<int64_t>{1, 1});
    d.set(CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, CUDNN_TYPE_INT64, std::vector<int64_t>{g.stride, g.stride});
    d.finalize("convolution");
    return d;
  }

  static cudnnPointwiseMode_t pointwise_mode(Act act) {
    if (act == Act::silu) return CUDNN_POINTWISE_SWISH_FWD;
    if (act == Act::sigmoid) return CUDNN_POINTWISE_SIGMOID_FWD;
    GM_CHECK(act == Act::relu || act == Act::relu6, "conv2d: cuDNN lacks this activation");
    return CUDNN_POINTWISE_RELU_FWD;  // pointwise() has the upper clip
  }
  void pointwise(cudnnPointwiseMode_t mode, const Descriptor& x, const Descriptor* b, const Descriptor& y) {
    Descriptor& p = keep(CUDNN_BACKEND_POINTWISE_DESCRIPTOR);
    p.set(CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, mode);
    p.set(CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_TYPE_DATA_TYPE, CUDNN_DATA_FLOAT);
    if (mode == CUDNN_POINTWISE_RELU_FWD && q_.act == Act::relu6)
      p.set(CUDNN_ATTR_POINTWISE_RELU_UPPER_CLIP, CUDNN_TYPE_DOUBLE, 6.0);
    if (mode == CUDNN_POINTWISE_SWISH_FWD) p.set(CUDNN_ATTR_POINTWISE_SWISH_BETA, CUDNN_TYPE_DOUBLE, 1.0);
    p.finalize("pointwise");
    Descriptor& o = keep(CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
    o.set(CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, p);
    o.set(CUDNN_ATTR_OPERATION_POINTWISE_XDESC, x);
    if (b) o.set(CUDNN_ATTR_OPERATION_POINTWISE_BDESC, *b);
    o.set(CUDNN_ATTR_OPERATION_POINTWISE_YDESC, y);
    o.finalize("pointwise operation");
    operations_.push_back(o.raw());
  }

  void build() {
    const ConvGeometry& g = q_.g;
    const cudnnDataType_t io = g.dtype == DType::bf16 ? CUDNN_DATA_BFLOAT16 : CUDNN_DATA_FLOAT;
    const bool forward = q_.graph == CudnnGraph::forward || q_.graph == CudnnGraph::forward_epilogue;
    const bool data = q_.graph == CudnnGraph::backward_data || q_.graph == CudnnGraph::backward_data_add;
    const bool epilogue = q_.graph == CudnnGraph::forward_epilogue,
               add = q_.graph == CudnnGraph::weights_f32_add,
               widen = q_.graph == CudnnGraph::weights_f32 || add;
    int64_t next = kVirtual;
    Descriptor& x = tensor(kX, g.n, g.c, g.h, g.w, io);
    Descriptor& w = tensor(widen ? next++ : kW, g.k, g.c, g.kernel, g.kernel, widen ? CUDNN_DATA_FLOAT : io);
    Descriptor* y = &tensor(epilogue ? next++ : kY, g.n, g.k, g.oh, g.ow, epilogue ? CUDNN_DATA_FLOAT : io);
    Descriptor& conv = convolution();
    struct Names {
      cudnnBackendAttributeName_t x, w, y, conv, alpha, beta;
    };
    const Names names = forward ? Names{CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X,
                                        CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,
                                        CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y,
                                        CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC,
                                        CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA,
                                        CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA}
                        : data  ? Names{CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX,
                                       CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W,
                                       CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY,
                                       CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC,
                                       CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA,
                                       CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA}
                                : Names{CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X,
                                       CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW,
                                       CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY,
                                       CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC,
                                       CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA,
                                       CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA};
    Descriptor& o = keep(forward ? CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR
                         : data  ? CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR
                                 : CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR);
    o.set(names.x, x);
    o.set(names.w, w);
    o.set(names.y, *y);
    o.set(names.conv, conv);
    o.set(names.alpha, CUDNN_TYPE_FLOAT, 1.f);
    o.set(names.beta, CUDNN_TYPE_FLOAT, q_.graph == CudnnGraph::backward_data_add ? 1.f : 0.f);
    o.finalize("convolution operation");
    operations_.push_back(o.raw());
    if (widen) {
      auto filters = [&](int64_t uid) -> Descriptor& {
        return tensor(uid, g.k, g.c, g.kernel, g.kernel, CUDNN_DATA_FLOAT);
      };
      pointwise(add ? CUDNN_POINTWISE_ADD : CUDNN_POINTWISE_IDENTITY, w, add ? &filters(kResidual) : nullptr,
                filters(kW));
    }
    if (!epilogue) return;
    // Results between the operations are f32 and virtual: only the last one is rounded and written.
    int left = q_.bias + (q_.act != Act::none) + q_.residual;
    auto then = [&](cudnnPointwiseMode_t mode, const Descriptor* operand) {
      const bool last = --left == 0;
      Descriptor& to = tensor(last ? kY : next++, g.n, g.k, g.oh, g.ow, last ? io : CUDNN_DATA_FLOAT);
      pointwise(mode, *y, operand, to);
      y = &to;
    };
    if (q_.bias) then(CUDNN_POINTWISE_ADD, &tensor(kBias, 1, g.k, 1, 1, CUDNN_DATA_FLOAT));
    if (q_.act != Act::none) then(pointwise_mode(q_.act), nullptr);
    if (q_.residual) then(CUDNN_POINTWISE_ADD, &tensor(kResidual, g.n, g.k, g.oh, g.ow, io));
  }

  bool acceptable(const Descriptor& configuration, int64_t workspace_cap) const {
    int64_t count = 0, bytes = 0;
    if (cudnnBackendGetAttribute(configuration.raw(), CUDNN_ATTR_ENGINECFG_WORKSPACE_SIZE, CUDNN_TYPE_INT64,
                                 1, &count, &bytes) == CUDNN_STATUS_SUCCESS &&
        bytes > workspace_cap)
      return false;
    // It transforms, though no note says so: sums of small integers, exact by every other kernel, come out
    // off by 1.1e-4 of their size with a 5x5 kernel, and real ones by up to 2.8e-6, ten times as much as by
    // another (cuDNN 9.19 on an H200).
    constexpr int64_t kTransforms = 17;
    if (gradient_of_weights(q_.graph) && q_.g.dtype == DType::f32 && !q_.tf32 &&
        Engine(configuration).index() == kTransforms)
      return false;
    for (cudnnBackendNumericalNote_t note : Engine(configuration).numerical_notes()) switch (note) {
        case CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC:
          if (q_.deterministic) return false;
          break;
        case CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION:
        case CUDNN_NUMERICAL_NOTE_WINOGRAD:
        case CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS:
        case CUDNN_NUMERICAL_NOTE_FFT:
          return false;
        case CUDNN_NUMERICAL_NOTE_TENSOR_CORE:
          if (q_.g.dtype == DType::f32 && !q_.tf32) return false;
          break;
        default:
          break;
      }
    return true;
  }

  CudnnQuestion q_;
  Descriptor* graph_ = nullptr;
  std::vector<std::unique_ptr<Descriptor>> kept_;
  std::vector<cudnnBackendDescriptor_t> operations_;
};

}  // namespace gm::cuda::cudnn_graph
