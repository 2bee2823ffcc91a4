// A new way of doing a call against the trusted one, on a card that is played: who is taken, what is kept,
// and that the call's own memory is left alone.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/common/contender.h"
#include "kernels/conv_bn_act/expand.h"

namespace gm {
namespace {

const char kProblem[] = "a problem", kOrigin[] = "a card";

/// Host memory; the clock reads what the test says.
class PlayedCard : public TrialDevice {
 public:
  double seconds[2] = {2, 1};  // of the trusted way and of the contender
  size_t room = 1 << 20;
  int timed = 0;

  void* allocate(size_t bytes) override {
    if (bytes > room) return nullptr;
    room -= bytes;
    return memory_.emplace_back(new char[bytes]).get();
  }
  void copy(void* to, const void* from, size_t bytes) override { std::memcpy(to, from, bytes); }
  void spoil(const View& t) override { std::memset(t.data, 0xFF, t.spec.bytes()); }
  std::vector<float> read(const View& t) override { return {t.as<float>(), t.as<float>() + t.numel()}; }
  std::vector<double> time(size_t count, const std::function<bool(size_t)>& start) override {
    ++timed;
    std::vector<double> all;
    for (size_t i = 0; i < count; ++i)
      all.push_back(start(i) ? seconds[i] : std::numeric_limits<double>::infinity());
    return all;
  }

 private:
  std::vector<std::unique_ptr<char[]>> memory_;
};

/// A call with two gradients, a running statistic and an output.
struct Call {
  std::vector<float> first = {1, 2}, second = {3, 4, 5}, statistic = {7}, output = {8, 9}, incoming = {1, 1};
  std::vector<GradView> din{{view(first), GradMode::accumulate}, {view(second), GradMode::overwrite}};
  std::vector<View> state{view(statistic)}, out{view(output)}, dout{view(incoming)};
  Attrs attrs;
  Context ctx;

  static View view(std::vector<float>& v) {
    return {v.data(), {{static_cast<int64_t>(v.size())}, DType::f32}};
  }
  OpCall backward() { return {attrs, {}, out, {}, state, dout, din, {}, ctx}; }
  OpCall forward() { return {attrs, {}, out, {}, state, {}, {}, {}, ctx}; }
};

void write(const View& to, float value) {
  for (int64_t i = 0; i < to.numel(); ++i) to.as<float>()[i] = value + static_cast<float>(i);
}
/// Writes the wanted gradients, or the output, as `factor` times what is right, and moves the statistic.
Way way(const char* name, float factor = 1) {
  return {name, [factor](const OpCall& c) {
            for (size_t d = 0; d < c.din.size(); ++d)
              if (c.din[d]) write(c.din[d].view, factor * static_cast<float>(10 * (d + 1)));
            if (c.dout.empty()) write(c.out[0], factor * c.state[0].as<float>()[0]);
            c.state[0].as<float>()[0] += 1;
          }};
}

TEST(Contender, TheFasterOneWithTheSameResultsIsTakenAndAskedNoMore) {
  Call call;
  PlayedCard card;
  PlanChoices choices;
  for (int again = 0; again < 2; ++again)
    EXPECT_TRUE(contender_pays(choices, kProblem, card, call.backward(), way("two"), way("one")));
  EXPECT_EQ(card.timed, 1);
  EXPECT_EQ(*choices.find(kProblem), "one");
  // Nothing of the call itself has been touched.
  EXPECT_EQ(call.first, (std::vector<float>{1, 2}));
  EXPECT_EQ(call.second, (std::vector<float>{3, 4, 5}));
  EXPECT_EQ(call.statistic, std::vector<float>{7});
  EXPECT_EQ(call.output, (std::vector<float>{8, 9})) << "backward writes no output";
}

TEST(Contender, ASlowerOneARefusedOneAndAWrongOneAreNotTaken) {
  const Way refused{"one", [](const OpCall&) { fail("no such launch"); }};
  auto half = way("one");
  half.run = [](const OpCall& c) { write(c.din[0].view, 10); };  // the second gradient is not written
  for (const auto& [contender, seconds] :
       {std::pair{way("one"), 3.0}, {refused, 1.0}, {way("one", 1.2f), 1.0}, {half, 1.0}}) {
    Call call;
    PlayedCard card;
    card.seconds[1] = seconds;
    PlanChoices choices;
    EXPECT_FALSE(contender_pays(choices, kProblem, card, call.backward(), way("two"), contender));
    EXPECT_EQ(*choices.find(kProblem), "two");
    EXPECT_EQ(PlanChoices::parse(choices.text(kOrigin), kOrigin).size(), 1u);
  }
}

TEST(Contender, ForwardIsJudgedByItsOutputsFromTheRunningStatistics) {
  for (const float factor : {1.f, 1.2f}) {
    Call call;
    PlayedCard card;
    PlanChoices choices;
    auto same = [](const OpCall& c) { write(c.out[0], c.state[0].as<float>()[0]); };
    auto other = [factor](const OpCall& c) { write(c.out[0], factor * c.state[0].as<float>()[0]); };
    EXPECT_EQ(contender_pays(choices, kProblem, card, call.forward(), {"two", same}, {"one", other}),
              factor == 1);
    EXPECT_FLOAT_EQ(call.output[0], 7 * factor) << "the statistic's value was there to be read";
    EXPECT_EQ(call.statistic, std::vector<float>{7});
  }
}

TEST(Contender, GradientsThatNobodyWantsAreNotAskedFor) {
  Call call;
  call.din[0] = {};
  PlayedCard card;
  PlanChoices choices;
  auto checked = [](const char* name) {
    return Way{name, [](const OpCall& c) {
                 EXPECT_FALSE(c.din[0]);
                 ASSERT_TRUE(c.din[1] && c.din[1].view);
                 write(c.din[1].view, 1);
               }};
  };
  EXPECT_TRUE(contender_pays(choices, kProblem, card, call.backward(), checked("two"), checked("one")));
}

TEST(Contender, WhatCannotBeLearntNowIsSettledForThisProcessOnly) {
  Call call;
  for (const bool room : {false, true}) {
    PlayedCard card;
    if (!room) card.room = 12;
    PlanChoices choices;
    const float bad = room ? std::nanf("") : 1;
    for (int again = 0; again < 2; ++again)
      EXPECT_FALSE(
          contender_pays(choices, kProblem, card, call.backward(), way("two", bad), way("one", bad)));
    EXPECT_EQ(card.timed, room ? 1 : 0);
    EXPECT_EQ(*choices.find(kProblem), "two");
    EXPECT_FALSE(choices.unsaved());
    EXPECT_EQ(PlanChoices::parse(choices.text(kOrigin), kOrigin).size(), 0u);
  }
}

TEST(Contender, KeysOfExpansionsNameAllThatDecidesAndReadBack) {
  Call call;
  call.attrs = {{"eps", 1e-3}, {"momentum", 0.9}, {"training", 1}};
  Pointwise p;
  p.pixels = 589824, p.c = 24, p.k = 144;
  std::vector<std::string> keys{expansion_key(call.forward(), p), expansion_key(call.backward(), p)};
  call.din[0] = {};
  keys.push_back(expansion_key(call.backward(), p));
  call.attrs.set("training", 0);
  keys.push_back(expansion_key(call.forward(), p));
  keys.push_back(expansion_key(call.backward(), p));
  call.ctx.deterministic = false;
  keys.push_back(expansion_key(call.backward(), p));
  p.k = 96;
  keys.push_back(expansion_key(call.forward(), p));
  PlanChoices choices;
  for (const std::string& key : keys) choices.choose(key, "joint");
  EXPECT_EQ(choices.size(), keys.size()) << "two of them are the same";
  for (int round = 0; round < 2; ++round) {
    PlanChoices read = PlanChoices::parse(choices.text(kOrigin), kOrigin);
    read.add_earlier(choices);
    EXPECT_EQ(read.size(), keys.size());
    for (const std::string& key : keys) {
      ASSERT_TRUE(read.find(key)) << key;
      EXPECT_EQ(*read.find(key), "joint");
    }
    choices = read;
  }
}

TEST(Contender, NamesThatTheFileCouldNotHoldAreRefused) {
  PlanChoices choices;
  EXPECT_THROW(choices.choose("24 -> 144", "joint"), Error);
  EXPECT_THROW(choices.choose("24", "a\nb"), Error);
  EXPECT_THROW(choices.choose("", "joint"), Error);
  EXPECT_EQ(choices.size(), 0u);
}

TEST(PlanChoices, AnotherCandidateOfAForgottenProblemIsTaken) {
  PlanChoices mine, earlier;
  mine.choose("conv 1", "engine 1");
  mine.forget("conv 1");
  mine.choose("conv 2", "engine 3");
  earlier.choose("conv 1", "engine 2");
  earlier.choose("conv 2", "engine 3");
  EXPECT_EQ(mine.add_earlier(earlier), 0u) << "neither is another one than chosen here";
  ASSERT_TRUE(mine.find("conv 1"));
  EXPECT_EQ(*mine.find("conv 1"), "engine 2");
}

TEST(PlanChoices, ALineWithoutAProblemOrACandidateIsRefused) {
  PlanChoices one;
  one.choose("conv 1", "engine 1");
  for (const std::string part : {"conv 1", "engine 1"}) {
    std::string text = one.text(kOrigin);
    text.erase(text.find(part), part.size());
    try {
      PlanChoices::parse(text, kOrigin);
      ADD_FAILURE() << text;
    } catch (const Error& e) {
      EXPECT_STREQ(e.what(), "line 3 names no plan");
    }
  }
}

}  // namespace
}  // namespace gm
