#include "engine/captured_graph_cuda.h"

#include <cstdio>
#include <exception>

#include "kernels/common/error.h"

namespace gm {

namespace {

class CudaCapturedGraph : public CapturedGraph {
 public:
  CudaCapturedGraph(cudaGraphExec_t graph, cudaStream_t stream) : graph_(graph), stream_(stream) {}
  ~CudaCapturedGraph() override {
    if (const cudaError_t status = cudaGraphExecDestroy(graph_); status != cudaSuccess)
      std::fprintf(stderr, "closing a CUDA graph: %s\n", cudaGetErrorString(status));
  }
  void start() override {
    if (const cudaError_t status = cudaGraphLaunch(graph_, stream_); status != cudaSuccess)
      fail(std::string("a CUDA graph does not start: ") + cudaGetErrorString(status));
  }

 private:
  cudaGraphExec_t graph_;
  cudaStream_t stream_;
};

}  // namespace

CudaEvent::CudaEvent() {
  const unsigned flags = cudaEventDisableTiming | cudaEventBlockingSync;
  if (const cudaError_t status = cudaEventCreateWithFlags(&event, flags); status != cudaSuccess)
    fail(std::string("cannot create a CUDA event: ") + cudaGetErrorString(status));
}
CudaEvent::~CudaEvent() {
  if (const cudaError_t status = cudaEventDestroy(event); status != cudaSuccess)
    std::fprintf(stderr, "closing a CUDA event: %s\n", cudaGetErrorString(status));
}

std::unique_ptr<CapturedGraph> capture_cuda_graph(cudaStream_t stream, const std::function<void()>& work,
                                                  std::string& reason) {
  reason.clear();
  auto note = [&reason](cudaError_t status) {
    if (status != cudaSuccess && reason.empty()) reason = cudaGetErrorString(status);
  };
  // Other threads may use the card meanwhile; only this one must not allocate or wait.
  note(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  if (!reason.empty()) {
    cudaGetLastError();  // or the next launch would report it
    return nullptr;
  }
  std::exception_ptr thrown;
  try {
    work();
  } catch (const Error& e) {
    reason = e.what();
  } catch (...) {  // the stream must not stay in capture
    thrown = std::current_exception();
  }
  cudaGraph_t graph = nullptr;
  note(cudaStreamEndCapture(stream, &graph));
  cudaGraphExec_t ready = nullptr;
  if (reason.empty() && !thrown) note(cudaGraphInstantiate(&ready, graph, 0));
  if (graph) cudaGraphDestroy(graph);
  cudaGetLastError();  // a failed capture leaves the stream as it was, and the error behind
  if (thrown) std::rethrow_exception(thrown);
  if (!reason.empty()) return nullptr;
  return std::make_unique<CudaCapturedGraph>(ready, stream);
}

}  // namespace gm
