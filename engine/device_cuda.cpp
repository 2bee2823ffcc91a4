#include <cuda_runtime.h>

#include <algorithm>
#include <cstdio>
#include <optional>
#include <unordered_map>

#include "engine/captured_graph_cuda.h"
#include "engine/device_cuda.h"
#include "engine/jpeg_decoder_cuda.h"
#include "engine/plan_store.h"
#include "engine/status_cuda.h"
#include "kernels/common/backends.h"
#include "kernels/common/bytes.h"
#include "kernels/common/cuda_libraries.h"
#include "kernels/common/cuda_messages.h"
#include "kernels/common/error.h"
#include "kernels/common/op.h"

namespace gm {

namespace {

static_assert(cuda_status::memory_allocation == cudaErrorMemoryAllocation &&
              cuda_status::stub_library == cudaErrorStubLibrary &&
              cuda_status::insufficient_driver == cudaErrorInsufficientDriver &&
              cuda_status::no_device == cudaErrorNoDevice &&
              cuda_status::no_kernel_image == cudaErrorNoKernelImageForDevice &&
              cuda_status::system_not_ready == cudaErrorSystemNotReady &&
              cuda_status::system_driver_mismatch == cudaErrorSystemDriverMismatch);

cudaDeviceProp properties_of(int index) {
  cudaDeviceProp properties;
  check_cuda(cudaGetDeviceProperties(&properties, index), "cuda:" + std::to_string(index));
  return properties;
}
std::string problem_of(int index, const cudaDeviceProp& p) {
  return architecture_problem(index, p.name, p.major, p.minor, GM_CUDA_ARCHS);
}
double gib(size_t bytes) { return static_cast<double>(bytes) / (1u << 30); }

/// A stream, closed with its owner, also where that does not come to be.
class OwnedStream {
 public:
  OwnedStream() = default;
  ~OwnedStream() {
    if (stream_) print_cuda(cudaStreamDestroy(stream_), "closing a CUDA stream");
  }
  OwnedStream(const OwnedStream&) = delete;
  OwnedStream& operator=(const OwnedStream&) = delete;
  void open() {
    check_cuda(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cannot create a CUDA stream");
  }
  operator cudaStream_t() const { return stream_; }

 private:
  cudaStream_t stream_ = nullptr;
};

class CudaDevice : public Device {
 public:
  CudaDevice(int index, const DeviceOptions& options) : index_(index), deterministic_(options.deterministic) {
    properties_ = properties_of(index);
    if (const std::string problem = problem_of(index, properties_); !problem.empty()) fail(problem);
    check_cuda(cudaSetDevice(index), "cuda:" + std::to_string(index));
    stream_.open();
    uploads_.open();
    libraries_ = make_cuda_libraries(index);
    libraries_->tf32 = options.tf32;
    if (const std::string folder = plan_cache_folder(); !folder.empty()) {
      store_.emplace(folder, libraries_->origin);
      libraries_->choices = store_->read();
      libraries_->timing = true;
    }
  }
  ~CudaDevice() override {
    keep_choices();
    for (cudaEvent_t event : timing_events_)
      if (event) cudaEventDestroy(event);
  }

  Backend backend() const override { return Backend::cuda; }
  std::string description() const override {
    int driver = 0;
    cudaDriverGetVersion(&driver);
    char text[128];
    std::snprintf(text, sizeof text, " (cuda:%d, sm_%d%d, %.1f GiB, CUDA driver %d.%d)", index_,
                  properties_.major, properties_.minor, gib(properties_.totalGlobalMem), driver / 1000,
                  driver % 1000 / 10);
    return properties_.name + std::string(text);
  }
  void* allocate(size_t bytes) override {
    select();
    void* data = nullptr;
    const cudaError_t status = cudaMalloc(&data, bytes);
    if (status == cudaErrorMemoryAllocation) {
      cudaGetLastError();  // out of memory is not sticky: clear it
      size_t free = 0, total = 0;
      cudaMemGetInfo(&free, &total);
      fail(out_of_memory_text(bytes, free, total));
    }
    check_cuda(status, bytes_text(bytes) + " of GPU memory");  // a kernel before it has failed
    used_ += sizes_[data] = bytes;
    peak_ = std::max(peak_, used_);
    return data;
  }
  void release(void* data) noexcept override {
    if (const auto it = sizes_.find(data); it != sizes_.end()) {
      used_ -= it->second;
      sizes_.erase(it);
    }
    print_cuda(cudaFree(data), "freeing GPU memory");
  }
  void upload(void* device, const void* host, size_t bytes) override {
    move(device, host, bytes, cudaMemcpyHostToDevice, "upload");
    // The host buffer may be reused at once, so the copy must have read it.
    synchronize();
  }
  void download(void* host, const void* device, size_t bytes) override {
    move(host, device, bytes, cudaMemcpyDeviceToHost, "download");
    synchronize();
  }
  void copy(void* to, const void* from, size_t bytes) override {
    move(to, from, bytes, cudaMemcpyDeviceToDevice, "copy");
  }
  void fill(void* data, unsigned char byte, size_t bytes) override {
    select();
    check_cuda(cudaMemsetAsync(data, byte, bytes, stream_), "fill");
  }
  void synchronize() override {
    check_cuda(cudaStreamSynchronize(stream_), "a CUDA kernel failed");
    keep_choices();
  }
  void* allocate_host(size_t bytes) override {
    select();
    void* data = nullptr;
    const cudaError_t status = cudaMallocHost(&data, bytes);
    if (status != cudaSuccess) cudaGetLastError();  // or the next launch would report it
    check_cuda(status, bytes_text(bytes) + " of page-locked memory");
    return data;
  }
  void release_host(void* data) noexcept override {
    print_cuda(cudaFreeHost(data), "freeing page-locked memory");
  }
  void start_upload(void* device, const void* host, size_t bytes) override {
    select();
    check_cuda(cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, uploads_), "upload");
  }
  void start_download(void* host, const void* device, size_t bytes) override {
    move(host, device, bytes, cudaMemcpyDeviceToHost, "download");
  }
  std::unique_ptr<Event> make_event() override {
    select();
    return std::make_unique<CudaEvent>();
  }
  void record(Event& event, Stream on) override {
    check_cuda(cudaEventRecord(static_cast<CudaEvent&>(event).event, stream(on)), "record");
  }
  void wait(const Event& event) override {
    check_cuda(cudaEventSynchronize(static_cast<const CudaEvent&>(event).event), "a CUDA kernel failed");
  }
  void wait(Stream on, const Event& event) override {
    check_cuda(cudaStreamWaitEvent(stream(on), static_cast<const CudaEvent&>(event).event, 0), "wait");
  }
  std::unique_ptr<CapturedGraph> capture(const std::function<void()>& work, std::string& reason) override {
    select();
    keep_choices();  // of the first run, in which the libraries made their plans
    return capture_cuda_graph(stream_, work, reason);
  }
  std::unique_ptr<JpegDecoder> make_jpeg_decoder(std::string& reason) override {
    return open_nvjpeg(index_, reason);
  }
  size_t free_bytes() const override {
    select();
    size_t free = 0, total = 0;
    check_cuda(cudaMemGetInfo(&free, &total), "free memory");
    return free;
  }
  double time(const std::function<void()>& run) override {
    select();
    for (cudaEvent_t& event : timing_events_)
      if (!event) check_cuda(cudaEventCreate(&event), "cannot create a CUDA event");
    check_cuda(cudaEventRecord(timing_events_[0], stream_), "event");
    run();
    check_cuda(cudaEventRecord(timing_events_[1], stream_), "event");
    synchronize();
    float milliseconds = 0;
    check_cuda(cudaEventElapsedTime(&milliseconds, timing_events_[0], timing_events_[1]), "event");
    return milliseconds * 1e-3;
  }
  size_t cache_bytes() const override { return static_cast<size_t>(properties_.l2CacheSize); }
  // Asked for before every run of kernels, which go to the card that was selected last.
  Context context() const override {
    select();
    Context c;
    c.backend = Backend::cuda;
    c.stream = static_cast<cudaStream_t>(stream_);
    c.libraries = libraries_.get();
    c.deterministic = deterministic_;
    c.sm_count = properties_.multiProcessorCount;
    return c;
  }
  size_t overhead_bytes() const override { return libraries_->workspace_bytes; }
  size_t peak_bytes() const override { return peak_ + overhead_bytes(); }

 private:
  void select() const { check_cuda(cudaSetDevice(index_), "cuda:" + std::to_string(index_)); }
  // As soon as the host waits anyway: a run that is killed later goes on with the same plans.
  void keep_choices() {
    if (store_ && libraries_->choices.unsaved()) store_->write(libraries_->choices);
  }
  cudaStream_t stream(Stream on) const { return on == Stream::kernels ? stream_ : uploads_; }
  void move(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, const char* what) {
    select();
    check_cuda(cudaMemcpyAsync(to, from, bytes, kind, stream_), what);
  }

  int index_;
  bool deterministic_;
  cudaDeviceProp properties_{};
  OwnedStream stream_, uploads_;
  cudaEvent_t timing_events_[2] = {};  // of time()
  CudaLibrariesPtr libraries_;
  std::optional<PlanStore> store_;           // of libraries_->choices
  std::unordered_map<void*, size_t> sizes_;  // of the allocations
  size_t used_ = 0, peak_ = 0;
};

int device_count(std::string& reason) {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status == cudaSuccess && count > 0) return count;
  cudaGetLastError();
  int driver = 0;
  cudaDriverGetVersion(&driver);
  reason = no_device_text(status, cudaGetErrorString(status), driver, CUDART_VERSION);
  return 0;
}

}  // namespace

std::string no_cuda_reason() {
  static const std::string reason = [] {
    std::string text;
    return device_count(text) > 0 ? problem_of(0, properties_of(0)) : text;
  }();
  return reason;
}

std::unique_ptr<Device> open_cuda_device(int index, const DeviceOptions& options) {
  std::string reason;
  const int count = device_count(reason);
  if (count == 0) fail("--device cuda:" + std::to_string(index) + ": " + reason);
  if (index >= count)
    fail("--device cuda:" + std::to_string(index) + ": this machine has " + std::to_string(count) +
         " CUDA device" + (count == 1 ? "" : "s"));
  install_cuda_kernels();
  return std::make_unique<CudaDevice>(index, options);
}

}  // namespace gm
