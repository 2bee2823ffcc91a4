// Main of Makefile.cuda: the cases of one op on the GPU, against the reference, then timed. Its CUDA device
// is the bare minimum, without cuDNN and cuBLAS, so that nothing else of the engine needs to be built.
#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <cstring>

#include "engine/buffer.h"
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

// Tensors of one case on the device, for repeated calls.
class Bench {
 public:
  Bench(Device& device, const OpDef& op, const OpCase& c, const CaseData& data)
      : device_(device),
        op_(op),
        case_(c),
        data_(data),
        ctx_(device.context()),
        flush_(device, size_t{256} << 20) {
    for (size_t i = 0; i < data.in.size(); ++i)
      in_.push_back(c.in[i].fill == Fill::absent ? View{nullptr, data.in[i]}
                                                 : put(data.in[i], &data.in_values[i]));
    for (size_t i = 0; i < data.out.size(); ++i) {
      out_.push_back(put(data.out[i], nullptr));
      dout_.push_back(put(data.out[i], &data.dout_values[i]));
    }
    for (const auto& spec : data.saved) saved_.push_back(put(spec, nullptr));
    for (size_t i = 0; i < data.state.size(); ++i)
      state_.push_back(put(data.state[i], &data.state_values[i]));
    din_.resize(data.in.size());
    for (int i : op.differentiable) {
      TensorSpec spec = data.in[i];
      if (!in_[i] || (spec.dtype != DType::f32 && spec.dtype != DType::bf16)) continue;
      if (std::count(op.parameters.begin(), op.parameters.end(), i)) spec.dtype = DType::f32;
      din_[i] = {put(spec, nullptr), GradMode::overwrite};
    }
    const StepState step{1, 1};
    buffers_.emplace_back(device, sizeof step);
    device.upload(buffers_.back().data(), &step, sizeof step);
    ctx_.step = static_cast<const StepState*>(buffers_.back().data());
  }

  // Median microseconds of one pass, the second-level cache flushed before each repeat.
  double microseconds(Pass pass) {
    const size_t bytes = op_.workspace ? op_.workspace(Backend::cuda, pass, case_.attrs, data_.in) : 0;
    const View scratch = put({Shape{static_cast<int64_t>(bytes)}, DType::u8}, nullptr);
    const KernelPair kernels = kernel_table(Backend::cuda)[op_index(op_)];
    const OpCall call{case_.attrs, in_, out_, saved_, state_, dout_, din_, scratch, ctx_};
    cudaEvent_t start, stop;
    check(cudaEventCreate(&start), "cudaEventCreate");
    check(cudaEventCreate(&stop), "cudaEventCreate");
    std::vector<float> times;
    for (int repeat = 0; repeat < 25; ++repeat) {
      check(cudaMemsetAsync(flush_.data(), repeat, flush_.bytes()), "cudaMemsetAsync");
      check(cudaEventRecord(start), "cudaEventRecord");
      (pass == Pass::forward ? kernels.forward : kernels.backward)(call);
      check(cudaEventRecord(stop), "cudaEventRecord");
      check(cudaEventSynchronize(stop), "kernel");
      float ms = 0;
      check(cudaEventElapsedTime(&ms, start, stop), "cudaEventElapsedTime");
      if (repeat >= 5) times.push_back(ms);
    }
    cudaEventDestroy(start);
    cudaEventDestroy(stop);
    std::nth_element(times.begin(), times.begin() + times.size() / 2, times.end());
    return 1e3 * times[times.size() / 2];
  }

 private:
  View put(const TensorSpec& spec, const std::vector<double>* values) {
    buffers_.emplace_back(device_, spec.bytes());
    if (values) {
      std::vector<char> host(spec.bytes());
      for (size_t i = 0; i < values->size(); ++i) encode((*values)[i], spec.dtype, host.data(), i);
      device_.upload(buffers_.back().data(), host.data(), host.size());
    }
    return buffers_.back().view(0, spec);
  }
  template <class T>
  static void set(char* host, size_t i, T value) {
    std::memcpy(host + i * sizeof value, &value, sizeof value);
  }
  static void encode(double v, DType t, char* host, size_t i) {
    switch (t) {
      case DType::f64:
        return set(host, i, v);
      case DType::f32:
        return set(host, i, static_cast<float>(v));
      case DType::bf16:
        return set(host, i, to_bf16(static_cast<float>(v)));
      case DType::i32:
        return set(host, i, static_cast<int32_t>(v));
      case DType::u8:
        return set(host, i, static_cast<uint8_t>(v));
    }
  }

  Device& device_;
  const OpDef& op_;
  const OpCase& case_;
  const CaseData& data_;
  Context ctx_;
  Buffer flush_;
  std::vector<Buffer> buffers_;
  std::vector<View> in_, out_, saved_, state_, dout_;
  std::vector<GradView> din_;
};

int run_all() {
  auto device = open_device("cuda");
  const OpDef& op = *all_ops().front();
  std::printf("%s on %s; median of 20, L2 flushed\n", std::string(op.name).c_str(),
              device->description().c_str());
  bool good = true;
  for (const OpCase& c : op.cases()) {
    const CaseData data = make_data(op, c);
    const bool right = verify(*device, op, c, data);
    good &= right;
    std::printf("%s  %s\n", right ? "ok    " : "FAILED", case_name(op, c).c_str());
    if (!right) continue;
    Bench bench(*device, op, c, data);
    for (Pass pass : {Pass::forward, Pass::backward}) {
      if (pass == Pass::backward && op.differentiable.empty()) continue;
      const Cost cost = op.cost(pass, c.attrs, data.in);
      const double us = bench.microseconds(pass);
      std::printf("        %-8s %9.2f us %9.1f GB/s %9.1f GFLOP/s\n",
                  pass == Pass::forward ? "forward" : "backward", us, 1e-3 * cost.bytes / us,
                  1e-3 * cost.flops / us);
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
