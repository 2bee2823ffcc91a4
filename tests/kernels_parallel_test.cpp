// The CPU's threads: every item once, errors that reach the caller, scratch that grows.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <thread>
#include <vector>

#include "kernels/common/parallel.h"

namespace gm {
namespace {

TEST(ThreadPool, EveryItemIsDoneOnce) {
  for (int threads : {1, 2, 5})
    for (int64_t count : {0, 1, 2, 7, 1000}) {
      ThreadPool pool(threads);
      std::vector<std::atomic<int>> done(static_cast<size_t>(count));
      pool.run(count, [&](int64_t i, int thread) {
        ++done[static_cast<size_t>(i)];
        if (thread < 0 || thread >= pool.threads()) ADD_FAILURE() << "thread " << thread;
      });
      for (const auto& times : done) EXPECT_EQ(times, 1);
    }
}

TEST(ThreadPool, RangesCoverTheWholeInPiecesOfAGrain) {
  for (int threads : {1, 3})
    for (int64_t total : {0, 1, 10, 97, 4096})
      for (int64_t grain : {0, 1, 10, 5000}) {
        ThreadPool pool(threads);
        std::vector<std::atomic<int>> done(static_cast<size_t>(total));
        std::atomic<int64_t> pieces = 0;
        pool.ranges(total, grain, [&](int64_t begin, int64_t end, int) {
          ++pieces;
          for (int64_t i = begin; i < end; ++i) ++done[static_cast<size_t>(i)];
        });
        for (const auto& times : done) EXPECT_EQ(times, 1);
        if (grain > 0) EXPECT_LE(pieces, (total + grain - 1) / grain) << total << " by " << grain;
      }
}

TEST(ThreadPool, AnErrorEndsTheRunAndReachesTheCaller) {
  for (int threads : {1, 3}) {
    ThreadPool pool(threads);
    std::atomic<int64_t> begun = 0;
    auto fail_at_once = [&] {
      pool.run(5000, [&](int64_t i, int) {
        ++begun;
        if (i == 0) throw std::runtime_error("no");
        std::this_thread::sleep_for(std::chrono::microseconds(100));
      });
    };
    for (int again = 0; again < 2; ++again) EXPECT_THROW(fail_at_once(), std::runtime_error);
    EXPECT_LT(begun, 5000) << "the other items were begun";
    int64_t sum = 0;
    EXPECT_NO_THROW(pool.run(1, [&](int64_t, int) { ++sum; }));
    std::atomic<int64_t> all = 0;
    EXPECT_NO_THROW(pool.run(100, [&](int64_t, int) { ++all; })) << "an error of an earlier run";
    EXPECT_EQ(sum + all, 101);
  }
}

TEST(ThreadPool, ScratchGrowsAndItsSlotsAreApart) {
  ThreadPool pool(2);
  std::vector<char*> all;
  for (int thread : {0, 1})
    for (int slot = 0; slot < 4; ++slot) {
      pool.scratch(thread, 8, slot);
      char* memory = static_cast<char*>(pool.scratch(thread, 4096, slot));
      EXPECT_EQ(reinterpret_cast<uintptr_t>(memory) % 64, 0u);
      std::memset(memory, 4 * thread + slot, 4096);
      EXPECT_EQ(pool.scratch(thread, 100, slot), memory) << "what is large enough is kept";
      all.push_back(memory);
    }
  for (size_t i = 0; i < all.size(); ++i)
    for (int k : {0, 4095}) EXPECT_EQ(all[i][k], static_cast<char>(i));
  EXPECT_EQ(pool.scratch_bytes(), 8u * 4096);
}

}  // namespace
}  // namespace gm
