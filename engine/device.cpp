#include "engine/device.h"

#include <cstdlib>
#include <cstring>

#include "engine/budget.h"
#include "engine/device_cuda.h"
#include "kernels/common/backends.h"
#include "kernels/common/bytes.h"
#include "kernels/common/clock.h"
#include "kernels/common/error.h"
#include "kernels/common/op.h"
#include "kernels/common/parallel.h"

namespace gm {

namespace {

// Host memory. Serves the CPU backend and, in tests, the simt and ref backends, whose kernels run on the
// host.
class HostDevice : public Device {
 public:
  HostDevice(Backend backend, const DeviceOptions& options)
      : backend_(backend), pool_(backend == Backend::cpu ? options.threads : 1) {}

  Backend backend() const override { return backend_; }
  std::string description() const override {
    if (backend_ != Backend::cpu) return backend_name(backend_);
    return "cpu (" + std::to_string(pool_.threads()) + " threads, " + cpu_kernels_name() + ")";
  }
  void* allocate(size_t bytes) override {
    void* data = std::aligned_alloc(kMemoryAlign, aligned_bytes(bytes));
    if (!data) fail("out of memory: could not allocate " + bytes_text(bytes) + " on the CPU");
    return data;
  }
  void release(void* data) noexcept override { std::free(data); }
  void upload(void* device, const void* host, size_t bytes) override { std::memcpy(device, host, bytes); }
  void download(void* host, const void* device, size_t bytes) override { std::memcpy(host, device, bytes); }
  void copy(void* to, const void* from, size_t bytes) override { std::memmove(to, from, bytes); }
  void fill(void* data, unsigned char byte, size_t bytes) override { std::memset(data, byte, bytes); }
  void synchronize() override {}
  Context context() const override {
    Context c;
    c.backend = backend_;
    c.pool = const_cast<ThreadPool*>(&pool_);
    c.sm_count = 4;  // simt: small grids that still have several blocks
    return c;
  }
  size_t overhead_bytes() const override { return pool_.scratch_bytes(); }
  size_t peak_bytes() const override { return peak_resident_bytes(); }

 private:
  Backend backend_;
  ThreadPool pool_;
};

}  // namespace

std::unique_ptr<JpegDecoder> Device::make_jpeg_decoder(std::string& reason) {
  reason = backend_name(backend()) + std::string(" has no decoder of its own");
  return nullptr;
}

std::unique_ptr<CapturedGraph> Device::capture(const std::function<void()>&, std::string& reason) {
  reason = std::string(backend_name(backend())) + " kernels run when they are called";
  return nullptr;
}

double Device::time(const std::function<void()>& run) {
  synchronize();
  const double start = seconds_now();
  run();
  synchronize();
  return seconds_now() - start;
}

std::unique_ptr<Device> open_device(const std::string& name, const DeviceOptions& options) {
  if (name == "auto") return open_device(no_cuda_reason().empty() ? "cuda" : "cpu", options);
  if (name == "cpu") {
    install_cpu_kernels();
    return std::make_unique<HostDevice>(Backend::cpu, options);
  }
  if (name == "simt" || name == "ref") {
    const Backend backend = name == "simt" ? Backend::simt : Backend::ref;
    if (kernel_table(backend).empty()) fail("device '" + name + "' exists only in the tests");
    return std::make_unique<HostDevice>(backend, options);
  }
  if (name == "cuda" || name.rfind("cuda:", 0) == 0) {
    int index = 0;
    if (name.size() > 4) {
      char* end = nullptr;
      index = static_cast<int>(std::strtol(name.c_str() + 5, &end, 10));
      if (name.size() == 5 || *end || index < 0) fail("--device " + name + ": write cuda or cuda:INDEX");
    }
    if (std::string reason = no_cuda_reason(); index == 0 && !reason.empty())
      fail("--device " + name + ": " + reason);
    return open_cuda_device(index, options);
  }
  fail("--device " + name + ": unknown device; use auto, cpu, cuda or cuda:INDEX");
}

}  // namespace gm
