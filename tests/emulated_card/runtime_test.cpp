// The emulated runtime: when work runs, what a capture holds, what is refused.
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <array>
#include <cstdlib>
#include <functional>
#include <thread>
#include <utility>
#include <vector>

#include "tests/emulated_card/runtime_test_kernels.h"

namespace gm::test {
namespace {

constexpr int kThreads = 32;
constexpr size_t kBytes = kThreads * sizeof(int);

class EmulatedRuntime : public testing::Test {
 protected:
  EmulatedRuntime() {
    for (cudaStream_t& stream : streams) cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
    cudaMalloc(reinterpret_cast<void**>(&values), kBytes);
    cudaMallocHost(reinterpret_cast<void**>(&locked), kBytes);
    cudaEventCreateWithFlags(&event, cudaEventDisableTiming);
  }
  ~EmulatedRuntime() override {
    for (cudaStream_t stream : streams) EXPECT_EQ(cudaStreamDestroy(stream), cudaSuccess);
    EXPECT_EQ(cudaEventDestroy(event), cudaSuccess);
    EXPECT_EQ(cudaFree(values), cudaSuccess);
    EXPECT_EQ(cudaFreeHost(locked), cudaSuccess);
    EXPECT_EQ(cudaGetLastError(), cudaSuccess);
  }
  void set_locked(int value) {
    for (int i = 0; i < kThreads; ++i) locked[i] = value;
  }
  /// What the card has, as a copy in the stream sees it.
  int on_card(cudaStream_t stream) {
    std::array<int, kThreads> got{};
    EXPECT_EQ(cudaMemcpyAsync(got.data(), values, kBytes, cudaMemcpyDeviceToHost, stream), cudaSuccess);
    for (int v : got) EXPECT_EQ(v, got[0]);
    return got[0];
  }
  cudaError_t upload(cudaStream_t stream) {
    return cudaMemcpyAsync(values, locked, kBytes, cudaMemcpyHostToDevice, stream);
  }
  cudaError_t download(cudaStream_t stream) {
    return cudaMemcpyAsync(locked, values, kBytes, cudaMemcpyDeviceToHost, stream);
  }

  cudaStream_t streams[2] = {};
  cudaEvent_t event = nullptr;
  int *values = nullptr, *locked = nullptr;
};

TEST_F(EmulatedRuntime, NewMemoryHoldsNothingOfUse) { EXPECT_EQ(on_card(streams[0]), -1); }

TEST_F(EmulatedRuntime, WorkWaitsUntilItIsWaitedFor) {
  ASSERT_EQ(cudaMemsetAsync(values, 0, kBytes, streams[0]), cudaSuccess);
  ASSERT_EQ(start_add(values, 3, kThreads, streams[0]), cudaSuccess);
  set_locked(7);
  ASSERT_EQ(download(streams[0]), cudaSuccess);
  EXPECT_EQ(locked[0], 7);
  ASSERT_EQ(cudaStreamSynchronize(streams[0]), cudaSuccess);
  EXPECT_EQ(locked[0], 3);
  EXPECT_EQ(locked[kThreads - 1], 3);
}

TEST_F(EmulatedRuntime, LaunchInBrackets) {
  ASSERT_EQ(cudaMemsetAsync(values, 0, kBytes, streams[0]), cudaSuccess);
  start_add_by_brackets(values, 4, kThreads, streams[0]);
  EXPECT_EQ(on_card(streams[0]), 4);
}

TEST_F(EmulatedRuntime, PageLockedMemoryIsReadWhenTheCopyRuns) {
  set_locked(1);
  ASSERT_EQ(upload(streams[0]), cudaSuccess);
  set_locked(2);
  EXPECT_EQ(on_card(streams[0]), 2);
}

TEST_F(EmulatedRuntime, PageableMemoryIsReadAtOnce) {
  std::vector<int> host(kThreads, 1);
  ASSERT_EQ(cudaMemcpyAsync(values, host.data(), kBytes, cudaMemcpyHostToDevice, streams[0]), cudaSuccess);
  host.assign(kThreads, 2);
  EXPECT_EQ(on_card(streams[0]), 1);
}

TEST_F(EmulatedRuntime, StreamsDoNotWaitForEachOtherByThemselves) {
  set_locked(5);
  ASSERT_EQ(upload(streams[0]), cudaSuccess);
  EXPECT_EQ(on_card(streams[1]), -1);
  EXPECT_EQ(on_card(streams[0]), 5);
}

TEST_F(EmulatedRuntime, AnEventOrdersStreams) {
  set_locked(5);
  ASSERT_EQ(upload(streams[0]), cudaSuccess);
  ASSERT_EQ(cudaEventRecord(event, streams[0]), cudaSuccess);
  ASSERT_EQ(start_add(values, 1, kThreads, streams[0]), cudaSuccess);  // behind the event
  ASSERT_EQ(cudaStreamWaitEvent(streams[1], event, 0), cudaSuccess);
  EXPECT_EQ(on_card(streams[1]), 5);
  EXPECT_EQ(on_card(streams[0]), 6);
}

TEST_F(EmulatedRuntime, AnEventMeansItsLastRecordBeforeTheWait) {
  set_locked(1);
  ASSERT_EQ(cudaEventRecord(event, streams[0]), cudaSuccess);
  ASSERT_EQ(cudaStreamWaitEvent(streams[1], event, 0), cudaSuccess);
  ASSERT_EQ(upload(streams[0]), cudaSuccess);
  ASSERT_EQ(cudaEventRecord(event, streams[0]), cudaSuccess);
  EXPECT_EQ(on_card(streams[1]), -1);
  ASSERT_EQ(cudaEventSynchronize(event), cudaSuccess);
  EXPECT_EQ(on_card(streams[1]), 1);
}

TEST_F(EmulatedRuntime, WaitingForAnEventGoesNoFurther) {
  ASSERT_EQ(cudaMemsetAsync(values, 0, kBytes, streams[0]), cudaSuccess);
  ASSERT_EQ(cudaEventRecord(event, streams[0]), cudaSuccess);
  ASSERT_EQ(start_add(values, 1, kThreads, streams[0]), cudaSuccess);
  ASSERT_EQ(cudaEventSynchronize(event), cudaSuccess);
  EXPECT_EQ(on_card(streams[1]), 0);
}

TEST_F(EmulatedRuntime, TheLegacyStreamAndBlockingStreamsWaitForEachOther) {
  cudaStream_t blocking;
  ASSERT_EQ(cudaStreamCreate(&blocking), cudaSuccess);
  ASSERT_EQ(cudaMemset(values, 0, kBytes), cudaSuccess);
  EXPECT_EQ(on_card(streams[0]), -1);  // a non-blocking one does not
  ASSERT_EQ(start_add(values, 1, kThreads, blocking), cudaSuccess);
  EXPECT_EQ(on_card(nullptr), 1);
  EXPECT_EQ(cudaStreamDestroy(blocking), cudaSuccess);
}

TEST_F(EmulatedRuntime, FunctionsOfTheHostRunInTheirPlace) {
  int before = 0;
  std::pair<int*, int*> seen{locked, &before};
  set_locked(0);
  ASSERT_EQ(cudaMemsetAsync(values, 1, kBytes, streams[0]), cudaSuccess);
  ASSERT_EQ(download(streams[0]), cudaSuccess);
  ASSERT_EQ(cudaLaunchHostFunc(
                streams[0],
                [](void* data) {
                  const auto [from, to] = *static_cast<std::pair<int*, int*>*>(data);
                  *to = cudaDeviceSynchronize() == cudaErrorNotPermitted ? *from : -1;
                },
                &seen),
            cudaSuccess);
  EXPECT_EQ(before, 0);
  ASSERT_EQ(cudaStreamSynchronize(streams[0]), cudaSuccess);
  EXPECT_EQ(before, 0x01010101);
  EXPECT_EQ(cudaGetLastError(), cudaErrorNotPermitted);
}

TEST_F(EmulatedRuntime, TimeBetweenEvents) {
  cudaEvent_t marks[2];
  for (cudaEvent_t& mark : marks) ASSERT_EQ(cudaEventCreate(&mark), cudaSuccess);
  ASSERT_EQ(cudaEventRecord(marks[0], streams[0]), cudaSuccess);
  ASSERT_EQ(cudaMemsetAsync(values, 0, kBytes, streams[0]), cudaSuccess);
  ASSERT_EQ(cudaEventRecord(marks[1], streams[0]), cudaSuccess);
  float milliseconds = -1;
  EXPECT_EQ(cudaEventElapsedTime(&milliseconds, marks[0], marks[1]), cudaErrorNotReady);
  ASSERT_EQ(cudaEventSynchronize(marks[1]), cudaSuccess);
  EXPECT_EQ(cudaEventElapsedTime(&milliseconds, marks[0], marks[1]), cudaSuccess);
  EXPECT_GE(milliseconds, 0);
  for (cudaEvent_t mark : marks) EXPECT_EQ(cudaEventDestroy(mark), cudaSuccess);
  EXPECT_EQ(cudaGetLastError(), cudaErrorNotReady);
}

// ---- graphs

TEST_F(EmulatedRuntime, ACaptureIsPlayedBackWithItsParameters) {
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t ready = nullptr;
  cudaStreamCaptureStatus status;
  ASSERT_EQ(cudaStreamBeginCapture(streams[0], cudaStreamCaptureModeThreadLocal), cudaSuccess);
  ASSERT_EQ(upload(streams[0]), cudaSuccess);
  ASSERT_EQ(start_add(values, 10, kThreads, streams[0]), cudaSuccess);
  ASSERT_EQ(cudaStreamIsCapturing(streams[0], &status), cudaSuccess);
  EXPECT_EQ(status, cudaStreamCaptureStatusActive);
  ASSERT_EQ(cudaStreamEndCapture(streams[0], &graph), cudaSuccess);
  ASSERT_EQ(cudaGraphInstantiate(&ready, graph, 0), cudaSuccess);
  ASSERT_EQ(cudaGraphDestroy(graph), cudaSuccess);
  EXPECT_EQ(on_card(streams[0]), -1);
  for (int value : {1, 2}) {
    set_locked(value);
    ASSERT_EQ(cudaGraphLaunch(ready, streams[0]), cudaSuccess);
    EXPECT_EQ(on_card(streams[0]), value + 10);
  }
  ASSERT_EQ(cudaGraphLaunch(ready, streams[0]), cudaSuccess);
  ASSERT_EQ(cudaGraphExecDestroy(ready), cudaSuccess);  // what was launched still runs
  EXPECT_EQ(on_card(streams[0]), 12);
}

TEST_F(EmulatedRuntime, ACaptureFollowsEventsToOtherStreamsAndBack) {
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t ready = nullptr;
  cudaEvent_t back;
  ASSERT_EQ(cudaEventCreateWithFlags(&back, cudaEventDisableTiming), cudaSuccess);
  ASSERT_EQ(cudaStreamBeginCapture(streams[0], cudaStreamCaptureModeThreadLocal), cudaSuccess);
  ASSERT_EQ(cudaMemsetAsync(values, 0, kBytes, streams[0]), cudaSuccess);
  ASSERT_EQ(cudaEventRecord(event, streams[0]), cudaSuccess);
  ASSERT_EQ(cudaStreamWaitEvent(streams[1], event, 0), cudaSuccess);
  ASSERT_EQ(start_add(values, 2, kThreads, streams[1]), cudaSuccess);
  ASSERT_EQ(cudaEventRecord(back, streams[1]), cudaSuccess);
  ASSERT_EQ(cudaStreamWaitEvent(streams[0], back, 0), cudaSuccess);
  ASSERT_EQ(download(streams[0]), cudaSuccess);
  ASSERT_EQ(cudaStreamEndCapture(streams[0], &graph), cudaSuccess);
  ASSERT_EQ(cudaGraphInstantiate(&ready, graph, 0), cudaSuccess);
  set_locked(0);
  ASSERT_EQ(cudaGraphLaunch(ready, streams[1]), cudaSuccess);
  ASSERT_EQ(cudaStreamSynchronize(streams[1]), cudaSuccess);
  EXPECT_EQ(locked[0], 2);
  EXPECT_EQ(cudaGraphDestroy(graph), cudaSuccess);
  EXPECT_EQ(cudaGraphExecDestroy(ready), cudaSuccess);
  EXPECT_EQ(cudaEventDestroy(back), cudaSuccess);
}

TEST_F(EmulatedRuntime, ACaptureMustBeJoined) {
  cudaGraph_t graph = nullptr;
  ASSERT_EQ(cudaStreamBeginCapture(streams[0], cudaStreamCaptureModeThreadLocal), cudaSuccess);
  ASSERT_EQ(cudaEventRecord(event, streams[0]), cudaSuccess);
  ASSERT_EQ(cudaStreamWaitEvent(streams[1], event, 0), cudaSuccess);
  ASSERT_EQ(cudaMemsetAsync(values, 0, kBytes, streams[1]), cudaSuccess);
  EXPECT_EQ(cudaStreamEndCapture(streams[0], &graph), cudaErrorStreamCaptureUnjoined);
  EXPECT_EQ(graph, nullptr);
  EXPECT_EQ(cudaGetLastError(), cudaErrorStreamCaptureUnjoined);
  EXPECT_EQ(on_card(streams[1]), -1);  // and is over
}

TEST_F(EmulatedRuntime, WhatACaptureForbidsSpoilsIt) {
  void* data = nullptr;
  std::array<int, kThreads> host;
  const std::function<cudaError_t()> calls[] = {
      [&] { return cudaMalloc(&data, 1); },
      [&] { return cudaMallocHost(&data, 1); },
      [&] { return cudaFree(values); },
      [&] { return cudaStreamSynchronize(streams[0]); },
      [&] { return cudaDeviceSynchronize(); },
      [&] { return cudaMemcpyAsync(host.data(), values, kBytes, cudaMemcpyDeviceToHost, streams[0]); },
  };
  for (const auto& call : calls) {
    cudaGraph_t graph = nullptr;
    ASSERT_EQ(cudaStreamBeginCapture(streams[0], cudaStreamCaptureModeThreadLocal), cudaSuccess);
    EXPECT_EQ(call(), cudaErrorStreamCaptureUnsupported);
    EXPECT_EQ(start_add(values, 1, kThreads, streams[0]), cudaErrorStreamCaptureInvalidated);
    EXPECT_EQ(cudaStreamEndCapture(streams[0], &graph), cudaErrorStreamCaptureInvalidated);
    EXPECT_EQ(graph, nullptr);
  }
  EXPECT_EQ(cudaGetLastError(), cudaErrorStreamCaptureInvalidated);
}

TEST_F(EmulatedRuntime, OtherThreadsMayAllocateMeanwhile) {
  cudaGraph_t graph = nullptr;
  ASSERT_EQ(cudaStreamBeginCapture(streams[0], cudaStreamCaptureModeThreadLocal), cudaSuccess);
  std::thread([] {
    void* data = nullptr;
    EXPECT_EQ(cudaMallocHost(&data, 64), cudaSuccess);
    EXPECT_EQ(cudaFreeHost(data), cudaSuccess);
  }).join();
  EXPECT_EQ(cudaStreamEndCapture(streams[0], &graph), cudaSuccess);
  EXPECT_EQ(cudaGraphDestroy(graph), cudaSuccess);
}

// ---- limits

TEST_F(EmulatedRuntime, MemoryHasAnEnd) {
  size_t free = 0, total = 0, less = 0;
  ASSERT_EQ(cudaMemGetInfo(&free, &total), cudaSuccess);
  void* data = nullptr;
  EXPECT_EQ(cudaMalloc(&data, free + 1), cudaErrorMemoryAllocation);
  EXPECT_EQ(cudaGetLastError(), cudaErrorMemoryAllocation);
  EXPECT_EQ(data, nullptr);
  ASSERT_EQ(cudaMalloc(&data, 1000), cudaSuccess);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(data) % 256, 0u);
  ASSERT_EQ(cudaMemGetInfo(&less, &total), cudaSuccess);
  EXPECT_EQ(less, free - 1000);
  EXPECT_EQ(cudaFree(data), cudaSuccess);
  EXPECT_EQ(cudaFree(data), cudaErrorInvalidValue);
  EXPECT_EQ(cudaGetLastError(), cudaErrorInvalidValue);
}

TEST_F(EmulatedRuntime, CopiesStayInTheirAllocations) {
  std::array<int, kThreads + 1> host{};
  EXPECT_EQ(cudaMemcpyAsync(values, host.data(), kBytes + 1, cudaMemcpyHostToDevice, streams[0]),
            cudaErrorInvalidValue);
  EXPECT_EQ(cudaMemcpyAsync(values, locked, kBytes + 1, cudaMemcpyHostToDevice, streams[0]),
            cudaErrorInvalidValue);
  EXPECT_EQ(cudaMemcpyAsync(host.data(), locked, kBytes, cudaMemcpyDeviceToHost, streams[0]),
            cudaErrorInvalidValue);
  EXPECT_EQ(cudaMemsetAsync(locked, 0, kBytes, streams[0]), cudaErrorInvalidValue);
  EXPECT_EQ(cudaMemsetAsync(values + 1, 0, kBytes, streams[0]), cudaErrorInvalidValue);
  EXPECT_EQ(cudaGetLastError(), cudaErrorInvalidValue);
}

TEST_F(EmulatedRuntime, LaunchesThatNoCardTakes) {
  EXPECT_EQ(start_nothing(1, 1024, streams[0]), cudaSuccess);
  EXPECT_EQ(start_nothing(1, 1025, streams[0]), cudaErrorInvalidConfiguration);
  EXPECT_EQ(start_nothing(1, dim3(1, 1, 65), streams[0]), cudaErrorInvalidConfiguration);
  EXPECT_EQ(start_nothing(0, 32, streams[0]), cudaErrorInvalidConfiguration);
  EXPECT_EQ(start_nothing(dim3(1, 65536), 32, streams[0]), cudaErrorInvalidConfiguration);
  int* no_values = nullptr;
  void* arguments[] = {&no_values};
  EXPECT_EQ(cudaLaunchKernel(bounded_kernel(), 1, 65, arguments, 0, streams[0]), cudaErrorInvalidValue);
  EXPECT_EQ(cudaLaunchKernel(&kBytes, 1, 1, arguments, 0, streams[0]), cudaErrorInvalidDeviceFunction);
  EXPECT_EQ(cudaGetLastError(), cudaErrorInvalidDeviceFunction);
  EXPECT_EQ(cudaStreamSynchronize(streams[0]), cudaSuccess);
}

TEST_F(EmulatedRuntime, SharedMemoryIsToBeAskedFor) {
  ASSERT_EQ(cudaMemsetAsync(values, 0, kBytes, streams[0]), cudaSuccess);
  EXPECT_EQ(start_add(values, 1, kThreads, streams[0], 48 << 10), cudaSuccess);
  EXPECT_EQ(start_add(values, 1, kThreads, streams[0], (48 << 10) + 1), cudaErrorInvalidValue);
  const auto most = cudaFuncAttributeMaxDynamicSharedMemorySize;
  EXPECT_EQ(cudaFuncSetAttribute(add_kernel(), most, (163 << 10) + 1), cudaErrorInvalidValue);
  EXPECT_EQ(cudaFuncSetAttribute(add_kernel(), most, 64 << 10), cudaSuccess);
  EXPECT_EQ(start_add(values, 1, kThreads, streams[0], 64 << 10), cudaSuccess);
  EXPECT_EQ(on_card(streams[0]), 2);
  EXPECT_EQ(cudaFuncSetAttribute(bounded_kernel(), most, (162 << 10) + 1), cudaErrorInvalidValue);
  cudaFuncAttributes attributes{};
  ASSERT_EQ(cudaFuncGetAttributes(&attributes, bounded_kernel()), cudaSuccess);
  EXPECT_EQ(attributes.sharedSizeBytes, 1024u);
  EXPECT_EQ(attributes.maxThreadsPerBlock, 64);
  EXPECT_EQ(attributes.maxDynamicSharedSizeBytes, 47 << 10);
  EXPECT_EQ(attributes.ptxVersion, 80);
  int blocks = 0;
  ASSERT_EQ(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, bounded_kernel(), 64, 38 << 10),
            cudaSuccess);
  EXPECT_EQ(blocks, 4);  // 164 KiB by 40
  EXPECT_EQ(cudaGetLastError(), cudaErrorInvalidValue);
}

TEST_F(EmulatedRuntime, TheCard) {
  cudaDeviceProp card;
  ASSERT_EQ(cudaGetDeviceProperties(&card, 0), cudaSuccess);
  EXPECT_STREQ(card.name, "Emulated sm_80");
  EXPECT_EQ(card.major, 8);
  int shared = 0;
  ASSERT_EQ(cudaDeviceGetAttribute(&shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, 0), cudaSuccess);
  EXPECT_EQ(shared, 163 << 10);
  EXPECT_EQ(cudaSetDevice(1), cudaErrorInvalidDevice);
  EXPECT_EQ(cudaGetLastError(), cudaErrorInvalidDevice);
}

/// In a process of its own: the card is of no use afterwards.
void write_behind_the_end() {
  cudaStream_t stream;
  int* values;
  void* more = nullptr;
  const bool as_wanted =
      cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) == cudaSuccess &&
      cudaMalloc(reinterpret_cast<void**>(&values), kBytes) == cudaSuccess &&
      cudaMemsetAsync(values, 0, kBytes, stream) == cudaSuccess &&
      start_add(values, 1, kThreads + 1, stream) == cudaSuccess &&
      cudaStreamSynchronize(stream) == cudaErrorIllegalAddress &&
      cudaGetLastError() == cudaErrorIllegalAddress && cudaMalloc(&more, 1) == cudaErrorIllegalAddress &&
      cudaGetLastError() == cudaErrorIllegalAddress && cudaGetLastError() == cudaErrorIllegalAddress;
  std::exit(as_wanted ? 0 : 1);
}

TEST(EmulatedRuntimeDeathTest, AnIllegalAddressIsTheEnd) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(write_behind_the_end(), testing::ExitedWithCode(0), "emulated card: .*add");
}

/// An upload that does not wait for the kernel that reads what was there before.
void write_too_early() {
  cudaStream_t kernels, uploads;
  int *values, *locked, got[kThreads];
  bool good = cudaStreamCreateWithFlags(&kernels, cudaStreamNonBlocking) == cudaSuccess &&
              cudaStreamCreateWithFlags(&uploads, cudaStreamNonBlocking) == cudaSuccess &&
              cudaMalloc(reinterpret_cast<void**>(&values), kBytes) == cudaSuccess &&
              cudaMallocHost(reinterpret_cast<void**>(&locked), kBytes) == cudaSuccess &&
              cudaMemsetAsync(values, 0, kBytes, kernels) == cudaSuccess &&
              cudaStreamSynchronize(kernels) == cudaSuccess &&
              start_add(values, 1, kThreads, kernels) == cudaSuccess;
  locked[0] = 100;
  good = good &&
         cudaMemcpyAsync(values, locked, sizeof(int), cudaMemcpyHostToDevice, uploads) == cudaSuccess &&
         cudaMemcpyAsync(got, values, kBytes, cudaMemcpyDeviceToHost, kernels) == cudaSuccess;
  std::exit(good && got[0] == 101 && got[1] == 1 ? 0 : 1);
}

TEST(EmulatedRuntimeDeathTest, OtherStreamsMayRunFirst) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  setenv("GM_EMULATED_ORDER", "others", 1);
  EXPECT_EXIT(write_too_early(), testing::ExitedWithCode(0), "");
  unsetenv("GM_EMULATED_ORDER");
}

}  // namespace
}  // namespace gm::test
