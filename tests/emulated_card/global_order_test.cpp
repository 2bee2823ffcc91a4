// What orders accesses to global memory, and what does not: two blocks of two warps, the value written by the
// first.
#include "tests/emulated_card/global_order.h"

#include <gtest/gtest.h>

#include <functional>
#include <string>

namespace gm::emulated {
namespace {

constexpr uintptr_t kValue = 4108, kTicket = 8192, kOtherTicket = 8196;

using Steps = std::function<void(GlobalOrder&)>;

/// What is wrong with the last access when the blocks run one after the other; empty when nothing.
std::string after(const Steps& first, const Steps& second, unsigned warp = 1, Use use = Use::read) {
  GlobalOrder order(2);
  order.begin_block(0);
  first(order);
  order.begin_block(1);
  second(order);
  const char* wrong = order.touch(warp, kValue, 4, use);
  return wrong ? wrong : "";
}
void write(GlobalOrder& o, unsigned warp) { EXPECT_EQ(o.touch(warp, kValue, 4, Use::write), nullptr); }
void read(GlobalOrder& o, unsigned warp) { EXPECT_EQ(o.touch(warp, kValue, 4, Use::read), nullptr); }
void draw(GlobalOrder& o, unsigned warp, uintptr_t ticket = kTicket) {
  EXPECT_EQ(o.touch(warp, ticket, 4, Use::atomic), nullptr);
}

const Steps kRelease = [](GlobalOrder& o) { write(o, 1), o.fence(1), o.barrier(), draw(o, 0); };
const Steps kAcquire = [](GlobalOrder& o) { draw(o, 0), o.barrier(), o.fence(1); };
const Steps kNothing = [](GlobalOrder&) {};

TEST(GlobalOrder, FenceAndTicketOrderBlocks) {
  EXPECT_EQ(after(kRelease, kAcquire), "");
  EXPECT_EQ(after(kRelease, kAcquire, 1, Use::write), "");
  // The fence of the thread that draws covers what a barrier has handed to it.
  EXPECT_EQ(after([](auto& o) { write(o, 1), o.barrier(), o.fence(0), draw(o, 0); },
                  [](auto& o) { draw(o, 0), o.fence(0), o.barrier(); }),
            "");
  EXPECT_EQ(
      after([](auto& o) { write(o, 1), o.fence(1), draw(o, 1); }, [](auto& o) { draw(o, 1), o.fence(1); }),
      "");
  // A barrier hands on what a fence covers.
  EXPECT_EQ(after([](auto& o) { write(o, 1), o.barrier(), o.fence(0), o.barrier(), draw(o, 1); }, kAcquire),
            "");
}

TEST(GlobalOrder, EachPartIsNeeded) {
  EXPECT_NE(after(kRelease, kNothing), "") << "no ticket drawn";
  EXPECT_NE(after([](auto& o) { write(o, 1), o.barrier(), draw(o, 0); }, kAcquire), "")
      << "no fence behind the write";
  EXPECT_NE(after([](auto& o) { o.fence(1), write(o, 1), o.barrier(), draw(o, 0); }, kAcquire), "")
      << "a fence before the write";
  EXPECT_NE(after([](auto& o) { write(o, 1), o.fence(1), draw(o, 0), o.barrier(); }, kAcquire), "")
      << "the ticket before the barrier";
  EXPECT_NE(after([](auto& o) { write(o, 1), o.fence(0), o.barrier(), draw(o, 0); }, kAcquire), "")
      << "another warp's fence, before the barrier";
  EXPECT_NE(after([](auto& o) { write(o, 1), o.fence(1), o.barrier(), draw(o, 0, kOtherTicket); }, kAcquire),
            "")
      << "another ticket";
  EXPECT_NE(after(kRelease, [](auto& o) { draw(o, 0), o.barrier(); }), "") << "no fence before the read";
  EXPECT_NE(after(kRelease, [](auto& o) { draw(o, 0), o.fence(1); }), "") << "no barrier behind the ticket";
  EXPECT_NE(after(kRelease, [](auto& o) { o.fence(1), draw(o, 0), o.barrier(); }), "")
      << "a fence before the ticket";
  EXPECT_NE(after(
                [](auto& o) {
                  o.fence(0), o.fence(1), o.barrier();
                  o.begin_block(7);
                  write(o, 1), o.barrier(), draw(o, 0);
                },
                kAcquire),
            "")
      << "fences of another block";
}

TEST(GlobalOrder, BlocksMayOnlyReadTheSame) {
  EXPECT_EQ(after([](auto& o) { read(o, 0); }, kNothing), "");
  EXPECT_NE(after([](auto& o) { read(o, 0); }, kNothing, 0, Use::write), "");
  EXPECT_NE(after([](auto& o) { write(o, 0); }, kNothing, 0, Use::write), "");
  EXPECT_NE(after([](auto& o) { write(o, 0); }, kNothing, 0, Use::atomic), "");
  EXPECT_EQ(after([](auto& o) { o.touch(0, kValue, 4, Use::atomic); }, kNothing, 0, Use::atomic), "");
  EXPECT_EQ(
      after([](auto& o) { o.touch(0, kValue + 4, 2, Use::write), o.touch(0, kValue - 2, 2, Use::write); },
            kNothing, 0, Use::write),
      "")
      << "neighbours";
  EXPECT_NE(after([](auto& o) { o.touch(0, kValue - 4, 8, Use::write); }, kNothing), "") << "in part";
}

TEST(GlobalOrder, WarpsOfABlockNeedABarrier) {
  const auto in_block = [](const Steps& steps, unsigned warp, Use use) {
    return after(kNothing, steps, warp, use);
  };
  EXPECT_EQ(in_block([](auto& o) { write(o, 0); }, 0, Use::read), "");
  EXPECT_NE(in_block([](auto& o) { write(o, 0); }, 1, Use::read), "");
  EXPECT_NE(in_block([](auto& o) { write(o, 0), o.fence(0), o.fence(1); }, 1, Use::read), "");
  EXPECT_EQ(in_block([](auto& o) { write(o, 0), o.barrier(); }, 1, Use::read), "");
  for (const unsigned writer : {0u, 1u})
    EXPECT_NE(in_block([](auto& o) { read(o, 0), read(o, 1); }, writer, Use::write), "");
  EXPECT_EQ(in_block([](auto& o) { read(o, 0), read(o, 1), o.barrier(); }, 1, Use::write), "");
  EXPECT_EQ(in_block([](auto& o) { read(o, 0), o.barrier(), read(o, 1); }, 1, Use::write), "");
}

TEST(GlobalOrder, TheReadOnlyCacheSeesNothingOfTheLaunch) {
  EXPECT_NE(after(kRelease, kAcquire, 1, Use::read_only), "");
  EXPECT_NE(after(
                kNothing, [](auto& o) { write(o, 1); }, 1, Use::read_only),
            "");
  EXPECT_EQ(after(kNothing, kNothing, 1, Use::read_only), "");
}

}  // namespace
}  // namespace gm::emulated
