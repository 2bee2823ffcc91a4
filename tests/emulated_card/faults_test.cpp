// Machines with several cards, and faults that are asked for.
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include "tests/emulated_card/machines.h"
#include "tests/emulated_card/runtime_test_kernels.h"

namespace gm::test {
namespace {

constexpr int kThreads = 32;
constexpr size_t kBytes = kThreads * sizeof(int);

/// Zeros on a card, which is selected, and a stream there.
struct OnCard {
  explicit OnCard(int card) {
    EXPECT_EQ(cudaSetDevice(card), cudaSuccess);
    EXPECT_EQ(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), cudaSuccess);
    EXPECT_EQ(cudaEventCreate(&event), cudaSuccess);
    EXPECT_EQ(cudaMalloc(reinterpret_cast<void**>(&values), kBytes), cudaSuccess);
    EXPECT_EQ(cudaMemsetAsync(values, 0, kBytes, stream), cudaSuccess);
    EXPECT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
  }
  int value() const {
    int got = -1;
    EXPECT_EQ(cudaMemcpyAsync(&got, values, sizeof got, cudaMemcpyDeviceToHost, stream), cudaSuccess);
    return got;
  }
  cudaStream_t stream = nullptr;
  cudaEvent_t event = nullptr;
  int* values = nullptr;
};

TEST(EmulatedCards, EachHasItsMemoryAndStreams) {
  const Machine machine("GM_EMULATED_CARDS=2 GM_EMULATED_MEMORY=16,32");
  int count = 0;
  ASSERT_EQ(cudaGetDeviceCount(&count), cudaSuccess);
  EXPECT_EQ(count, 2);
  EXPECT_EQ(cudaSetDevice(2), cudaErrorInvalidDevice);
  const OnCard first(0), second(1);
  size_t free = 0, total = 0;
  ASSERT_EQ(cudaMemGetInfo(&free, &total), cudaSuccess);
  EXPECT_EQ(total, size_t{32} << 20);
  EXPECT_EQ(free, total - kBytes);
  ASSERT_EQ(start_add(second.values, 2, kThreads, second.stream), cudaSuccess);
  EXPECT_EQ(start_add(first.values, 1, kThreads, first.stream), cudaErrorInvalidResourceHandle)
      << "the other card is selected";
  EXPECT_EQ(cudaEventRecord(first.event, second.stream), cudaErrorInvalidResourceHandle);
  EXPECT_EQ(cudaEventRecord(second.event, second.stream), cudaSuccess);
  EXPECT_EQ(cudaStreamWaitEvent(first.stream, second.event, 0), cudaSuccess) << "cards wait for each other";
  ASSERT_EQ(cudaSetDevice(0), cudaSuccess);
  ASSERT_EQ(start_add(first.values, 1, kThreads, first.stream), cudaSuccess);
  EXPECT_EQ(first.value(), 1);
  EXPECT_EQ(second.value(), 2);
  EXPECT_EQ(cudaFree(second.values), cudaSuccess) << "whichever is selected";
}

TEST(EmulatedCards, MemoryOfAnotherOneIsOutOfReach) {
  const Machine machine("GM_EMULATED_CARDS=2");
  const OnCard first(0), second(1);
  ASSERT_EQ(start_add(first.values, 1, kThreads, second.stream), cudaSuccess);
  EXPECT_EQ(cudaStreamSynchronize(second.stream), cudaErrorIllegalAddress);
  ASSERT_EQ(cudaSetDevice(0), cudaSuccess);
  EXPECT_EQ(first.value(), 0) << "the first card works on";
}

TEST(EmulatedCards, OfTwoGenerations) {
  const Machine machine("GM_EMULATED_CARDS=2 GM_EMULATED_CAPABILITY=75,80");
  cudaDeviceProp card;
  ASSERT_EQ(cudaGetDeviceProperties(&card, 0), cudaSuccess);
  EXPECT_STREQ(card.name, "Emulated sm_75");
  EXPECT_EQ(card.minor, 5);
  const OnCard first(0);
  EXPECT_EQ(start_add(first.values, 1, kThreads, first.stream), cudaErrorNoKernelImageForDevice);
  const OnCard second(1);
  EXPECT_EQ(start_add(second.values, 1, kThreads, second.stream), cudaSuccess);
  EXPECT_EQ(second.value(), 1);
}

TEST(EmulatedFaults, ACallIsRefusedOnce) {
  const Machine machine("GM_EMULATED_REFUSE=cudaMalloc:2");
  void* data = nullptr;
  for (const cudaError_t expected : {cudaSuccess, cudaErrorMemoryAllocation, cudaSuccess})
    EXPECT_EQ(cudaMalloc(&data, 1), expected);
  EXPECT_EQ(cudaGetLastError(), cudaErrorMemoryAllocation);
  EXPECT_EQ(emulated::calls("cudaMalloc"), 3);
  EXPECT_EQ(emulated::held(), (emulated::Held{.bytes = 2}));
}

TEST(EmulatedFaults, AKernelFailsWhenItRuns) {
  const Machine machine("GM_EMULATED_FAILING_KERNEL=2");
  const OnCard card(0);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(start_add(card.values, 1, kThreads, card.stream), cudaSuccess);
  EXPECT_EQ(cudaStreamSynchronize(card.stream), cudaErrorIllegalAddress);
  EXPECT_EQ(emulated::calls("kernels"), 2);
  EXPECT_EQ(cudaFree(card.values), cudaErrorIllegalAddress);
  emulated::restart();
  EXPECT_EQ(emulated::held(), emulated::Held{});
  EXPECT_EQ(OnCard(0).value(), 0);
}

}  // namespace
}  // namespace gm::test
