// Main of Makefile.cuda: the cases of one op on the GPU, against the reference, then timed. Its CUDA device
// is the bare minimum, without cuDNN and cuBLAS, so that nothing else of the engine needs to be built.
#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <cstdio>

#include "engine/benchmark.h"
#include "engine/device_cuda.h"
#include "kernels/common/backends.h"
#include "tests/op_harness.h"

namespace gm {

namespace {

void check(cudaError_t status, const char* what) {
  if (status != cudaSuccess) fail(std::string(what) + ": " + cudaGetErrorString(status));
}

class BareCudaDevice : public Device {
 public:
  BareCudaDevice() { check(cudaGetDeviceProperties(&properties_, 0), "cudaGetDeviceProperties"); }
  Backend backend() const override { return Backend::cuda; }
  std::string description() const override { return properties_.name; }
  void* allocate(size_t bytes) override {
    void* data = nullptr;
    check(cudaMalloc(&data, bytes), "cudaMalloc");
    return data;
  }
  void release(void* data) noexcept override { cudaFree(data); }
  void upload(void* to, const void* from, size_t bytes) override { copy(to, from, bytes); }
  void download(void* to, const void* from, size_t bytes) override { copy(to, from, bytes); }
  void copy(void* to, const void* from, size_t bytes) override {
    check(cudaMemcpy(to, from, bytes, cudaMemcpyDefault), "cudaMemcpy");
  }
  void fill(void* data, unsigned char byte, size_t bytes) override {
    check(cudaMemset(data, byte, bytes), "cudaMemset");
  }
  void synchronize() override { check(cudaDeviceSynchronize(), "kernel"); }
  double time(const std::function<void()>& run) override {
    cudaEvent_t marks[2];
    for (cudaEvent_t& mark : marks) check(cudaEventCreate(&mark), "cudaEventCreate");
    check(cudaEventRecord(marks[0]), "cudaEventRecord");
    run();
    check(cudaEventRecord(marks[1]), "cudaEventRecord");
    synchronize();
    float milliseconds = 0;
    check(cudaEventElapsedTime(&milliseconds, marks[0], marks[1]), "cudaEventElapsedTime");
    for (cudaEvent_t mark : marks) cudaEventDestroy(mark);
    return milliseconds * 1e-3;
  }
  size_t cache_bytes() const override { return static_cast<size_t>(properties_.l2CacheSize); }
  size_t peak_bytes() const override { return 0; }
  Context context() const override {
    Context c;
    c.backend = Backend::cuda;
    c.sm_count = properties_.multiProcessorCount;
    return c;
  }

 private:
  cudaDeviceProp properties_{};
};

}  // namespace

// What engine/device.cpp asks of the libraries that are not linked here.
std::unique_ptr<Device> open_cuda_device(int, const DeviceOptions&) {
  return std::make_unique<BareCudaDevice>();
}
std::string no_cuda_reason() {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status != cudaSuccess) return cudaGetErrorString(status);
  return count > 0 ? "" : "the driver lists none";
}
void install_cpu_kernels() {}
const char* cpu_kernels_name() { return "none"; }
size_t peak_resident_bytes() { return 0; }

namespace test {

namespace {

int failures() { return testing::UnitTest::GetInstance()->ad_hoc_test_result().total_part_count(); }

void compare(const std::vector<std::vector<double>>& got, const std::vector<std::vector<double>>& want,
             double tolerance, const std::string& what) {
  for (size_t i = 0; i < want.size(); ++i)
    if (!want[i].empty()) expect_close(got[i], want[i], tolerance, what + std::to_string(i));
}

bool verify(Device& device, const OpDef& op, const OpCase& c, const CaseData& data) {
  const int before = failures();
  for (bool accumulate : {false, true}) {
    if (accumulate && op.differentiable.empty()) continue;
    SCOPED_TRACE(case_name(op, c) + (accumulate ? " accumulate" : ""));
    const Result want = run_reference(op, c, data, accumulate), got = run(device, op, c, data, accumulate);
    compare(got.out, want.out, tolerance_of(c), "out");
    compare(got.state, want.state, tolerance_of(c), "state");
    compare(got.din, want.din, tolerance_of(c), "din");
  }
  return failures() == before;
}

int run_all() {
  auto device = open_device("cuda");
  const OpDef& op = find_op(GM_ONE_OP);
  ColdTimer timer(*device, 0.05);
  std::printf("%s on %s; medians, L2 flushed\n", std::string(op.name).c_str(), device->description().c_str());
  bool good = true;
  for (const OpCase& c : op.cases()) {
    const CaseData data = make_data(op, c);
    const bool right = verify(*device, op, c, data);
    good &= right;
    std::printf("%s  %s\n", right ? "ok    " : "FAILED", case_name(op, c).c_str());
    if (!right) continue;
    OpRun bench(*device, op, c);
    for (Pass pass : {Pass::forward, Pass::backward}) {
      if (pass == Pass::backward && op.differentiable.empty()) continue;
      const Timing t = time_op(timer, op, bench, c, pass);
      std::printf("        %-8s %9.2f us %9.1f GB/s %9.1f GFLOP/s\n",
                  pass == Pass::forward ? "forward" : "backward", 1e6 * t.median,
                  1e-9 * t.cost.bytes / t.median, 1e-9 * t.cost.flops / t.median);
    }
  }
  return good ? 0 : 1;
}

}  // namespace
}  // namespace test
}  // namespace gm

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  if (const std::string reason = gm::no_cuda_reason(); !reason.empty()) {
    std::fprintf(stderr, "no CUDA device: %s\n", reason.c_str());
    return 1;
  }
  gm::install_reference_kernels();
  gm::install_cuda_kernels();
  try {
    return gm::test::run_all();
  } catch (const std::exception& e) {
    std::fprintf(stderr, "error: %s\n", e.what());
    return 1;
  }
}
