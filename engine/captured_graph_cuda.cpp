#include "engine/captured_graph_cuda.h"

#include <exception>

#include "engine/status_cuda.h"
#include "kernels/common/error.h"

namespace gm {

namespace {

class CudaCapturedGraph : public CapturedGraph {
 public:
  CudaCapturedGraph(cudaGraphExec_t graph, cudaStream_t stream) : graph_(graph), stream_(stream) {}
  ~CudaCapturedGraph() override { print_cuda(cudaGraphExecDestroy(graph_), "closing a CUDA graph"); }
  void start() override { check_cuda(cudaGraphLaunch(graph_, stream_), "a CUDA graph does not start"); }

 private:
  cudaGraphExec_t graph_;
  cudaStream_t stream_;
};

}  // namespace

CudaEvent::CudaEvent() {
  const unsigned flags = cudaEventDisableTiming | cudaEventBlockingSync;
  check_cuda(cudaEventCreateWithFlags(&event, flags), "cannot create a CUDA event");
}
CudaEvent::~CudaEvent() { print_cuda(cudaEventDestroy(event), "closing a CUDA event"); }

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
