// The engine's ways out, driven on the emulated card: whatever is refused or fails, there is one error or
// none, nothing is left behind, and what comes to its end has the weights that it always has.
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <new>
#include <stdexcept>

#include "engine/device_feed.h"
#include "kernels/common/backends.h"
#include "tests/emulated_card/machines.h"
#include "tests/small_training.h"

namespace gm::test {
namespace {

using emulated::Held;

class EngineWaysOut : public testing::Test {
 protected:
  EngineWaysOut() {
    setenv("GM_PLAN_CACHE", "off", 1);
    install_cpu_kernels();
    EXPECT_EQ(no_cuda_reason(), "");  // asked once in a process
  }
  ~EngineWaysOut() override { unsetenv("GM_PLAN_CACHE"); }

  /// One epoch and its validation, some images resident: the checkpoint.
  std::string train(const std::string& card = "cuda") {
    auto device = open_device(card);
    ImagePool pool(*device);
    pool.reserve(20000, 0);
    Training run(*device, &pool, dir_ / card, {.accumulate = 2, .epochs = 1});
    EXPECT_EQ(run.train(), Trainer::Outcome::finished);
    device->synchronize();
    why_not_captured_ = run.trainer->feed().capture_error();
    return read_text(dir_ / card + "/last.safetensors");
  }
  /// The same on a machine where something fails. Its error is in `error_`, empty where there was none.
  std::string train_on(const std::string& machine) {
    const Machine other(machine);
    SCOPED_TRACE(machine);
    std::string weights;
    error_.clear();
    try {
      weights = train();
    } catch (const Error& e) {
      error_ = e.what();
      EXPECT_NE(error_, "");
      EXPECT_EQ(error_.find('\n'), std::string::npos) << error_;
    }
    held_ = emulated::held();
    return weights;
  }
  /// Some of 1..count, the first and the last among them.
  static std::vector<int64_t> some_of(int64_t count, int64_t most) {
    std::vector<int64_t> all;
    for (int64_t i = 0; i < std::min(count, most); ++i)
      all.push_back(count <= most ? i + 1 : 1 + i * (count - 1) / (most - 1));
    return all;
  }

  TempDir dir_;
  std::string error_, why_not_captured_;
  Held held_;
};

TEST_F(EngineWaysOut, ACardIsGivenBackAsItWas) {
  const Machine machine("");
  train();
  EXPECT_EQ(why_not_captured_, "");
  EXPECT_EQ(emulated::held(), Held{});
  EXPECT_EQ(cudaGetLastError(), cudaSuccess);
}

TEST_F(EngineWaysOut, TheSecondCardTrainsLikeTheFirstAndBesideIt) {
  const Machine machine("GM_EMULATED_CARDS=2");
  const std::string expected = train("cuda:0");
  EXPECT_TRUE(train("cuda:1") == expected);
  {
    auto one = open_device("cuda:1"), other = open_device("cuda:0");
    int selected = -1;
    for (const auto& [device, index] : {std::pair{one.get(), 1}, {other.get(), 0}, {one.get(), 1}}) {
      device->context();  // kernels follow
      EXPECT_EQ(cudaGetDevice(&selected), cudaSuccess);
      EXPECT_EQ(selected, index);
    }
    ImagePool pool_of_one(*one), pool_of_other(*other);
    pool_of_one.reserve(20000, 0);
    pool_of_other.reserve(20000, 0);
    const TrainingOptions options{.accumulate = 2, .epochs = 1};
    Training on_one(*one, &pool_of_one, dir_ / "one", options),
        on_other(*other, &pool_of_other, dir_ / "other", options);
    EXPECT_EQ(on_one.train(), Trainer::Outcome::finished);
    EXPECT_EQ(on_other.train(), Trainer::Outcome::finished);
    for (const char* run : {"one", "other"})
      EXPECT_TRUE(read_text(dir_ / run + "/last.safetensors") == expected) << run;
  }
  EXPECT_EQ(emulated::held(), Held{});
}

TEST_F(EngineWaysOut, ACallThatIsRefusedIsAnErrorAndLeavesNothingBehind) {
  const Machine machine("");
  const std::string expected = train();
  // What closes and what ends a capture is left out: refused, it could not leave nothing behind.
  std::vector<std::pair<std::string, int64_t>> functions;
  for (const char* name :
       {"cudaGetDeviceCount", "cudaGetDeviceProperties", "cudaSetDevice", "cudaMalloc", "cudaMallocHost",
        "cudaMemGetInfo", "cudaMemcpyAsync", "cudaMemsetAsync", "cudaLaunchKernel",
        "cudaStreamCreateWithFlags", "cudaStreamSynchronize", "cudaStreamWaitEvent",
        "cudaEventCreateWithFlags", "cudaEventRecord", "cudaEventSynchronize", "cudaStreamBeginCapture",
        "cudaGraphInstantiate", "cudaGraphLaunch"}) {
    functions.emplace_back(name, emulated::calls(name));
    if (std::string(name) != "cudaMemGetInfo") EXPECT_GT(functions.back().second, 0) << name;
  }
  for (const auto& [name, calls] : functions)
    for (const int64_t call : some_of(calls, 6)) {
      const std::string what = "GM_EMULATED_REFUSE=" + name + ":" + std::to_string(call);
      const std::string weights = train_on(what);
      EXPECT_EQ(held_, Held{}) << what;
      if (error_.empty()) EXPECT_TRUE(weights == expected) << what << " ends with other weights";
      const bool capture = name == "cudaStreamBeginCapture" || name == "cudaGraphInstantiate";
      if (capture) EXPECT_EQ(error_, "") << what;
      if (name == "cudaMalloc" || name == "cudaMallocHost")
        EXPECT_TRUE(error_.find("out of") != std::string::npos ||
                    error_.find("too full") != std::string::npos)
            << what << ": " << error_;
    }
}

// Candidates for a plan are timed and held against each other in memory of their own; where there is no room
// for that, the choice falls without them.
TEST_F(EngineWaysOut, ACallThatIsRefusedWhilePlansAreTimed) {
  const std::string timing = "GM_EMULATED_CUDNN=describe GM_PLAN_CACHE=";
  std::vector<std::pair<std::string, int64_t>> functions;
  {
    const Machine machine(timing + dir_ / "plans");
    train();
    for (const char* name : {"cudaMalloc", "cudaMemcpyAsync", "cudaMemsetAsync", "cudaLaunchKernel",
                             "cudaLaunchHostFunc", "cudaStreamSynchronize", "cudaEventCreateWithFlags",
                             "cudaEventRecord", "cudaEventSynchronize", "cudaEventElapsedTime"}) {
      functions.emplace_back(name, emulated::calls(name));
      EXPECT_GT(functions.back().second, 0) << name;
    }
  }
  int run = 0;
  for (const auto& [name, calls] : functions)
    for (const int64_t call : some_of(calls, 5)) {
      const std::string what = name + ":" + std::to_string(call);
      train_on(timing + dir_ / ("plans" + std::to_string(++run)) + " GM_EMULATED_REFUSE=" + what);
      EXPECT_EQ(held_, Held{}) << what << ": " << error_;
    }
}

TEST_F(EngineWaysOut, AKernelThatFailsIsToldOnce) {
  const Machine machine("");
  train();
  for (const int64_t kernel : some_of(emulated::calls("kernels"), 8)) {
    const std::string what = "GM_EMULATED_FAILING_KERNEL=" + std::to_string(kernel);
    testing::internal::CaptureStderr();
    train_on(what);
    const std::string said = testing::internal::GetCapturedStderr();
    EXPECT_NE(error_.find("an illegal memory access was encountered"), std::string::npos) << what << error_;
    EXPECT_EQ(said, "emulated card: the kernel that was to fail\n") << what;
  }
}

TEST_F(EngineWaysOut, WhatIsThrownInACaptureEndsIt) {
  const Machine machine("");
  {
    auto device = open_device("cuda");
    const Buffer buffer(*device, 256);
    std::string reason;
    EXPECT_THROW(device->capture([] { throw std::runtime_error("not ours"); }, reason), std::runtime_error);
    EXPECT_THROW(device->capture([] { throw std::bad_alloc(); }, reason), std::bad_alloc);
    EXPECT_EQ(device->capture([] { fail("ours"); }, reason), nullptr);
    EXPECT_EQ(reason, "ours");
    EXPECT_EQ(device->capture([&] { device->synchronize(); }, reason), nullptr);
    EXPECT_NE(reason, "");
    EXPECT_EQ(device->capture([&] { Buffer more(*device, 256); }, reason), nullptr);
    EXPECT_NE(reason, "");
    EXPECT_EQ(emulated::held().captures, 0u);
    EXPECT_EQ(cudaGetLastError(), cudaSuccess);
    // Nothing of it is left in the stream, and the next capture is as if there had been none.
    device->fill(buffer.data(), 1, buffer.bytes());
    auto graph = device->capture([&] { device->fill(buffer.data(), 2, buffer.bytes()); }, reason);
    ASSERT_NE(graph, nullptr) << reason;
    EXPECT_EQ(buffer.download<char>()[0], 1);
    graph->start();
    EXPECT_EQ(buffer.download<char>()[0], 2);
  }
  EXPECT_EQ(emulated::held(), Held{});
}

// ---- opening a card

TEST_F(EngineWaysOut, ADeviceThatDoesNotOpenHoldsNothing) {
  const Machine machine("");
  const auto opened = open_device("cuda");
  std::vector<std::pair<std::string, int64_t>> functions;
  for (const char* name : {"cudaGetDeviceCount", "cudaGetDeviceProperties", "cudaSetDevice", "cudaMalloc",
                           "cudaStreamCreateWithFlags"})
    functions.emplace_back(name, emulated::calls(name));
  for (const auto& [name, calls] : functions) {
    EXPECT_GT(calls, 0) << name;
    for (int64_t call = 1; call <= calls; ++call) {
      const Machine other("GM_EMULATED_REFUSE=" + name + ":" + std::to_string(call));
      EXPECT_THROW(open_device("cuda"), Error) << name << " " << call;
      EXPECT_EQ(emulated::held(), Held{}) << name << " " << call;
      EXPECT_NO_THROW(open_device("cuda")) << "the next one is as ever";
    }
  }
}

}  // namespace
}  // namespace gm::test
