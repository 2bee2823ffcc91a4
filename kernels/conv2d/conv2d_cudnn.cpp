#include "kernels/conv2d/conv2d_cudnn.h"

#include <cudnn.h>

#include <memory>
#include <utility>

#include "kernels/common/cuda_libraries.h"

namespace gm::cuda {

namespace {

// cuDNN does not serve a problem: an answer, not a failure.
struct Refusal : std::runtime_error {
  cudnnStatus_t status;
  Refusal(cudnnStatus_t s, const std::string& what) : std::runtime_error(what), status(s) {}
};
void check(cudnnStatus_t s, const char* what) {
  if (s == CUDNN_STATUS_SUCCESS) return;
  char text[2048] = "";
  cudnnGetLastErrorString(text, sizeof text);
  throw Refusal(s, std::string(what) + ": " + cudnnGetErrorString(s) + " " + text);
}

class Descriptor {
 public:
  explicit Descriptor(cudnnBackendDescriptorType_t type) {
    check(cudnnBackendCreateDescriptor(type, &d_), "create descriptor");
  }
  ~Descriptor() {
    if (d_) cudnnBackendDestroyDescriptor(d_);
  }
  Descriptor(Descriptor&& o) noexcept : d_(std::exchange(o.d_, nullptr)) {}
  Descriptor& operator=(Descriptor&&) = delete;
  cudnnBackendDescriptor_t raw() const { return d_; }

  template <class T>
  void set(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, const std::vector<T>& values) {
    check(cudnnBackendSetAttribute(d_, name, type, static_cast<int64_t>(values.size()), values.data()),
          "set attribute");
  }
  template <class T>
  void set(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, T value) {
    check(cudnnBackendSetAttribute(d_, name, type, 1, &value), "set attribute");
  }
  void set(cudnnBackendAttributeName_t name, const Descriptor& other) {
    set(name, CUDNN_TYPE_BACKEND_DESCRIPTOR, other.raw());
  }
  void finalize(const char* what) { check(cudnnBackendFinalize(d_), what); }

 private:
  cudnnBackendDescriptor_t d_ = nullptr;
};

constexpr int64_t kAlignment = 16;  // bytes, of every tensor
enum Uid : int64_t { kX = 1, kW = 2, kY = 3, kBias = 4, kVirtual = 5 };

// The descriptors of one operation graph; cuDNN keeps references, so they live as long as the plan.
class Graph {
 public:
  explicit Graph(const CudnnQuestion& q) : q_(q) { build(); }

  /// Engine configurations in cuDNN's order of preference, filtered by what we accept.
  std::vector<Descriptor> configurations(cudnnHandle_t handle, const Descriptor* device,
                                         int64_t workspace_cap) {
    Descriptor& graph = keep(CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
    if (handle) graph.set(CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, handle);
    graph.set(CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, operations_);
    graph.finalize("operation graph");
    std::vector<Descriptor> accepted;
    for (auto mode : {CUDNN_HEUR_MODE_A, CUDNN_HEUR_MODE_FALLBACK}) {
      Descriptor heuristic(CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
      heuristic.set(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, graph);
      heuristic.set(CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, mode);
      if (device) heuristic.set(CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, *device);
      if (cudnnBackendFinalize(heuristic.raw()) != CUDNN_STATUS_SUCCESS) continue;
      int64_t count = 0;
      check(cudnnBackendGetAttribute(heuristic.raw(), CUDNN_ATTR_ENGINEHEUR_RESULTS,
                                     CUDNN_TYPE_BACKEND_DESCRIPTOR, 0, &count, nullptr),
            "count engines");
      std::vector<Descriptor> found;
      std::vector<cudnnBackendDescriptor_t> raw;
      for (int64_t i = 0; i < count; ++i)
        raw.push_back(found.emplace_back(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR).raw());
      if (count)
        check(cudnnBackendGetAttribute(heuristic.raw(), CUDNN_ATTR_ENGINEHEUR_RESULTS,
                                       CUDNN_TYPE_BACKEND_DESCRIPTOR, count, &count, raw.data()),
              "list engines");
      for (int64_t i = 0; i < count; ++i)
        if (acceptable(found[i], workspace_cap)) accepted.push_back(std::move(found[i]));
    }
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
               widen = q_.graph == CudnnGraph::weights_f32;
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
    if (widen)
      pointwise(CUDNN_POINTWISE_IDENTITY, w, nullptr,
                tensor(kW, g.k, g.c, g.kernel, g.kernel, CUDNN_DATA_FLOAT));
    if (!epilogue) return;
    auto result = [&](bool last) -> Descriptor& {
      return tensor(last ? kY : next++, g.n, g.k, g.oh, g.ow, last ? io : CUDNN_DATA_FLOAT);
    };
    if (q_.bias) {
      Descriptor& bias = tensor(kBias, 1, g.k, 1, 1, CUDNN_DATA_FLOAT);
      Descriptor& sum = result(q_.act == Act::none);
      pointwise(CUDNN_POINTWISE_ADD, *y, &bias, sum);
      y = &sum;
    }
    if (q_.act != Act::none)
      pointwise(q_.act == Act::silu      ? CUDNN_POINTWISE_SWISH_FWD
                : q_.act == Act::sigmoid ? CUDNN_POINTWISE_SIGMOID_FWD
                                         : CUDNN_POINTWISE_RELU_FWD,
                *y, nullptr, result(true));
  }

  bool acceptable(const Descriptor& configuration, int64_t workspace_cap) const {
    int64_t count = 0, bytes = 0;
    if (cudnnBackendGetAttribute(configuration.raw(), CUDNN_ATTR_ENGINECFG_WORKSPACE_SIZE, CUDNN_TYPE_INT64,
                                 1, &count, &bytes) == CUDNN_STATUS_SUCCESS &&
        bytes > workspace_cap)
      return false;
    Descriptor engine(CUDNN_BACKEND_ENGINE_DESCRIPTOR);
    cudnnBackendDescriptor_t raw = engine.raw();
    check(cudnnBackendGetAttribute(configuration.raw(), CUDNN_ATTR_ENGINECFG_ENGINE,
                                   CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &count, &raw),
          "engine of a configuration");
    cudnnBackendNumericalNote_t notes[CUDNN_NUMERICAL_NOTE_TYPE_COUNT];
    check(cudnnBackendGetAttribute(engine.raw(), CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, CUDNN_TYPE_NUMERICAL_NOTE,
                                   CUDNN_NUMERICAL_NOTE_TYPE_COUNT, &count, notes),
          "numerical notes");
    for (int64_t i = 0; i < count; ++i) switch (notes[i]) {
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
  std::vector<std::unique_ptr<Descriptor>> kept_;
  std::vector<cudnnBackendDescriptor_t> operations_;
};

struct ConvolutionPlan : CudaPlan {
  std::unique_ptr<Graph> graph;
  std::vector<Descriptor> configurations;  // the plan refers to the one it was made of
  std::unique_ptr<Descriptor> plan;
  bool failed = false;
};

std::string key_of(const CudnnQuestion& q) {
  const ConvGeometry& g = q.g;
  std::string key = "conv";
  for (int64_t v : {int64_t(q.graph), int64_t(q.bias), int64_t(q.act), int64_t(q.deterministic),
                    int64_t(q.tf32), int64_t(g.dtype), g.n, g.h, g.w, g.c, g.k, g.kernel, g.stride, g.pad_top,
                    g.pad_left, g.pad_bottom, g.pad_right})
    key += ' ' + std::to_string(v);
  return key;
}

// The plan of a problem, made at the first call; null when cuDNN has none.
ConvolutionPlan* find_plan(CudaLibraries& libraries, const CudnnQuestion& q) {
  auto [it, created] = libraries.plans.try_emplace(key_of(q));
  if (created) try {
      auto made = std::make_unique<ConvolutionPlan>();
      made->graph = std::make_unique<Graph>(q);
      made->configurations = made->graph->configurations(libraries.cudnn, nullptr,
                                                         static_cast<int64_t>(libraries.workspace_bytes));
      for (Descriptor& configuration : made->configurations) {
        auto plan = std::make_unique<Descriptor>(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
        plan->set(CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, libraries.cudnn);
        plan->set(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, configuration);
        // A kernel that the heuristics offer may still fail to compile.
        if (cudnnBackendFinalize(plan->raw()) != CUDNN_STATUS_SUCCESS) continue;
        int64_t bytes = 0, count = 0;
        check(cudnnBackendGetAttribute(plan->raw(), CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE,
                                       CUDNN_TYPE_INT64, 1, &count, &bytes),
              "workspace of a plan");
        if (bytes > static_cast<int64_t>(libraries.workspace_bytes)) continue;
        made->plan = std::move(plan);
        break;
      }
      if (made->plan) it->second = std::move(made);
    } catch (const Refusal&) {
    }
  auto* plan = static_cast<ConvolutionPlan*>(it->second.get());
  return plan && !plan->failed ? plan : nullptr;
}

bool execute(const OpCall& call, const CudnnQuestion& q, void* x, void* w, void* y, void* bias) {
  CudaLibraries& libraries = *call.ctx.libraries;
  for (const void* p : {x, w, y, bias})
    if (reinterpret_cast<uintptr_t>(p) % kAlignment != 0) return false;  // plans are made for aligned tensors
  ConvolutionPlan* plan = find_plan(libraries, q);
  if (!plan) return false;
  try {
    check(cudnnSetStream(libraries.cudnn, static_cast<cudaStream_t>(call.ctx.stream)), "set stream");
    Descriptor pack(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
    std::vector<int64_t> uids{kX, kW, kY};
    std::vector<void*> pointers{x, w, y};
    if (bias) uids.push_back(kBias), pointers.push_back(bias);
    pack.set(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, uids);
    pack.set(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, pointers);
    pack.set(CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, libraries.workspace);
    pack.finalize("variant pack");
    check(cudnnBackendExecute(libraries.cudnn, plan->plan->raw(), pack.raw()), "execute");
    return true;
  } catch (const Refusal& refusal) {
    // 2xxx: bad parameter, our own mistake. 5xxx: the CUDA context is in trouble; our kernels would fail too.
    if (const int code = static_cast<int>(refusal.status); code / 1000 == 2 || code / 1000 == 5)
      fail("cuDNN convolution: " + std::string(refusal.what()));
    plan->failed = true;
    return false;
  }
}

CudnnQuestion question(const OpCall& call, CudnnGraph graph, const ConvGeometry& g) {
  return {.graph = graph, .g = g, .deterministic = call.ctx.deterministic, .tf32 = call.ctx.libraries->tf32};
}
bool usable(const OpCall& call) { return call.ctx.libraries && call.ctx.libraries->cudnn; }

}  // namespace

CudnnResult cudnn_conv_forward(const OpCall& call, const ConvGeometry& g) {
  if (!usable(call)) return CudnnResult::nothing;
  const Act act = act_of(call.attrs);
  void *x = call.in[0].data, *w = call.in[1].data, *y = call.out[0].data, *bias = call.in[2].data;
  if (bias || act != Act::none) {
    CudnnQuestion q = question(call, CudnnGraph::forward_epilogue, g);
    q.bias = bias != nullptr;
    q.act = act;
    if (execute(call, q, x, w, y, bias)) return CudnnResult::complete;
  }
  if (!execute(call, question(call, CudnnGraph::forward, g), x, w, y, nullptr)) return CudnnResult::nothing;
  return bias || act != Act::none ? CudnnResult::plain : CudnnResult::complete;
}

CudnnResult cudnn_conv_backward_data(const OpCall& call, const ConvGeometry& g) {
  if (!usable(call)) return CudnnResult::nothing;
  const auto graph =
      call.din[0].mode == GradMode::accumulate ? CudnnGraph::backward_data_add : CudnnGraph::backward_data;
  return execute(call, question(call, graph, g), call.din[0].view.data, call.in[1].data, call.dout[0].data,
                 nullptr)
             ? CudnnResult::complete
             : CudnnResult::nothing;
}

CudnnResult cudnn_conv_backward_weights(const OpCall& call, const ConvGeometry& g) {
  if (!usable(call)) return CudnnResult::nothing;
  const bool accumulate = call.din[1].mode == GradMode::accumulate;
  void *x = call.in[0].data, *dy = call.dout[0].data, *dw = call.din[1].view.data;
  void* place = accumulate ? call.workspace.data : dw;  // our own kernel adds afterwards
  const auto in_f32 = g.dtype == DType::f32 ? CudnnGraph::weights_same : CudnnGraph::weights_f32;
  if (execute(call, question(call, in_f32, g), x, place, dy, nullptr))
    return accumulate ? CudnnResult::sums_f32 : CudnnResult::complete;
  if (g.dtype == DType::f32) return CudnnResult::nothing;
  // Without run-time compilation cuDNN rounds the sums of bf16 problems to bf16.
  return execute(call, question(call, CudnnGraph::weights_same, g), x, call.workspace.data, dy, nullptr)
             ? CudnnResult::sums_bf16
             : CudnnResult::nothing;
}

CudnnOffer cudnn_offer(const CudnnQuestion& q, const std::string& device_json, int attempts) {
  CudnnOffer offer;
  try {
    Descriptor device(CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR);
    device.set(CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR,
               std::vector<char>(device_json.begin(), device_json.end()));
    device.finalize("device properties");
    Graph graph(q);
    const std::vector<Descriptor> found = graph.configurations(nullptr, &device, int64_t{64} << 20);
    offer.configurations = static_cast<int>(found.size());
    if (found.empty()) offer.refusal = "no engine configuration";
    for (int i = 0; i < attempts && i < offer.configurations && !offer.plan; ++i) {
      Descriptor plan(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
      plan.set(CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP, device);
      plan.set(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, found[i]);
      const cudnnStatus_t s = cudnnBackendFinalize(plan.raw());
      // 5xxx: the kernel was compiled and only loading it needs a driver.
      offer.plan = s == CUDNN_STATUS_SUCCESS || static_cast<int>(s) / 1000 == 5;
      if (!offer.plan) {
        char text[2048] = "";
        cudnnGetLastErrorString(text, sizeof text);
        offer.refusal = text;
      }
    }
  } catch (const Refusal& refusal) {
    offer.refusal = refusal.what();
  }
  return offer;
}

}  // namespace gm::cuda
