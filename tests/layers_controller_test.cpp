// The controller on a toy search with a planted optimum, against chance at the same budget; its state; the
// samplers.
#include <gtest/gtest.h>

#include <algorithm>

#include "kernels/common/error.h"
#include "layers/samplers.h"
#include "tests/data_test_util.h"

namespace gm {
namespace {

Architecture base() {
  Architecture a;
  a.classes = 5;
  a.input_size = 32;
  a.stages = {{BlockType::mbconv, 1, 3, 1, 16, 1},
              {BlockType::mbconv, 6, 3, 2, 24, 2},
              {BlockType::mbconv, 6, 5, 2, 40, 2}};
  a.head_filters = 80;
  return a;
}

// Between 0 and 1: the share of choices that agree with a planted network, and a bonus for neighbours that
// agree.
double toy_reward(const ChoiceVector& c, const ChoiceVector& planted) {
  double agree = 0, pairs = 0;
  for (size_t i = 0; i < c.size(); ++i) {
    agree += c[i] == planted[i];
    if (i > 0) pairs += c[i] == planted[i] && c[i - 1] == planted[i - 1];
  }
  return 0.7 * agree / static_cast<double>(c.size()) + 0.3 * pairs / static_cast<double>(c.size() - 1);
}

struct Outcome {
  double best = 0, late = 0;  // best of all children; mean of the last tenth of the iterations
};

Outcome search(const std::string& sampler, uint64_t seed, SamplerConfig config) {
  static auto device = open_device("cpu", {.threads = 1});
  const SearchSpace space(base(), {});
  PhiloxStream plant(seed + 1000, RngUse::sample);  // not the draws of any child
  const ChoiceVector planted = uniform_choices(space, plant);
  config.seed = seed;
  const auto who = make_sampler(sampler, space, *device, config);
  Outcome o;
  int64_t late = 0;
  for (int64_t i = 0; i < config.iterations; ++i) {
    std::vector<ScoredChild> children;
    for (int64_t k = 0; k < config.children; ++k) {
      PhiloxStream draws(seed, RngUse::sample, static_cast<uint32_t>(i), static_cast<uint32_t>(k));
      const ChoiceVector c = who->to_score(draws, i, k);
      children.push_back({c, toy_reward(c, planted)});
      o.best = std::max(o.best, children.back().reward);
      if (i >= config.iterations * 9 / 10) o.late += children.back().reward, ++late;
    }
    who->learn(i, children);
  }
  o.late /= static_cast<double>(late);
  return o;
}

SamplerConfig toy_config() {
  SamplerConfig c;
  c.iterations = 120;
  c.children = 8;
  c.controller.hidden = 32;
  c.controller.lr = 0.02;
  c.controller.baseline_decay = 0.9;
  return c;
}

TEST(Controller, BeatsRandomSearchAtEqualBudget) {
  double enas = 0, enas_late = 0, random = 0, random_late = 0;
  int won = 0;
  for (uint64_t seed = 0; seed < 10; ++seed) {
    const Outcome a = search("enas", seed, toy_config()), b = search("random", seed, toy_config());
    enas += a.best / 10;
    enas_late += a.late / 10;
    random += b.best / 10;
    random_late += b.late / 10;
    won += a.best > b.best;
  }
  EXPECT_GT(enas, random + 0.1) << "best child, mean of ten seeds: " << enas << " against " << random;
  EXPECT_GE(won, 9);
  EXPECT_GT(enas_late, random_late + 0.3) << enas_late << " against " << random_late;
  std::printf("best child, mean of ten seeds: controller %.3f, random %.3f; last tenth %.3f, %.3f\n", enas,
              random, enas_late, random_late);
}

TEST(Controller, PaperSettingsLearnToo) {
  SamplerConfig c = toy_config();
  c.iterations = 300;  // S2
  c.controller = {};
  const Outcome a = search("enas", 1, c), b = search("random", 1, c);
  EXPECT_GT(a.late, b.late + 0.02) << a.late << " against " << b.late;
}

TEST(Controller, StartsNearlyUniform) {
  auto device = open_device("cpu", {.threads = 1});
  Controller c(*device, {{0, 2}, {1, 3}, {0, 2}}, {}, 4, 5);
  int counts[3][3] = {};
  for (uint32_t n = 0; n < 3000; ++n) {
    PhiloxStream draws(9, RngUse::sample, n);
    const std::vector<int> s = c.sample(draws);
    ASSERT_EQ(s.size(), 3u);
    for (int i = 0; i < 3; ++i) ++counts[i][s[i]];
  }
  for (int i = 0; i < 3; ++i)
    for (int k = 0; k < (i == 1 ? 3 : 2); ++k)
      EXPECT_NEAR(counts[i][k] / 3000., i == 1 ? 1 / 3. : 0.5, 0.06) << i << " " << k;
  EXPECT_GT(c.entropy(), 0.98);
}

// The gradient of the whole sequence by finite differences of the likelihood: learning raises the probability
// of a rewarded sequence and lowers that of a punished one.
TEST(Controller, RewardedSequencesBecomeLikelier) {
  auto device = open_device("cpu", {.threads = 1});
  ControllerConfig config;
  config.lr = 0.05;
  config.baseline_decay = 1;  // the first mean for ever: advantages keep their sign
  config.entropy_weight = 0;
  Controller c(*device, {{0, 2}, {1, 3}, {0, 2}}, config, 2, 5);
  const std::vector<int> good{1, 2, 0}, bad{0, 0, 1};
  for (int i = 0; i < 30; ++i) c.learn({good, bad}, {1, 0});
  EXPECT_DOUBLE_EQ(c.baseline(), 0.5);
  int hits = 0, misses = 0;
  for (uint32_t n = 0; n < 200; ++n) {
    PhiloxStream draws(9, RngUse::sample, n);
    const auto s = c.sample(draws);
    hits += s == good;
    misses += s == bad;
  }
  EXPECT_GT(hits, 100);  // 17 by chance
  EXPECT_LT(misses, 5);
  EXPECT_LT(c.entropy(), 0.8);
  const double before = c.entropy();
  c.learn({good, bad}, {1, 0});
  EXPECT_EQ(c.entropy(), before) << "what a search prints behind the step";
  PhiloxStream draws(9, RngUse::sample, 200);
  c.sample(draws);
  EXPECT_LE(c.entropy(), 1) << "of what has been sampled since";
}

// Rewards that rise alike for all networks, as they do while shared weights learn, must not draw a search
// under a limit of MACs to small networks.
TEST(Controller, ALimitDoesNotDrawItToSmallNetworks) {
  const SearchSpace all(base(), {});
  SpaceOptions capped;
  capped.max_macs = network_size(all.base()).macs;
  const SearchSpace space(base(), capped);
  const SamplerConfig config = toy_config();
  auto device = open_device("cpu", {.threads = 1});
  // Of 400 networks that it proposes, drawn apart from those of the search.
  const auto mean_macs = [&](Sampler& sampler) {
    double sum = 0;
    for (uint32_t n = 0; n < 400; ++n) {
      PhiloxStream draws(77, RngUse::sample, n);
      sum += static_cast<double>(network_size(space.network(sampler.to_train(draws))).macs) / 400;
    }
    return sum;
  };
  const auto enas = make_sampler("enas", space, *device, config);
  const double before = mean_macs(*enas);
  for (int64_t i = 0; i < config.iterations; ++i) {
    std::vector<ScoredChild> children;
    for (int64_t k = 0; k < config.children; ++k) {
      PhiloxStream draws(1, RngUse::sample, static_cast<uint32_t>(i), static_cast<uint32_t>(k));
      const double reward = static_cast<double>(i) / static_cast<double>(config.iterations);
      children.push_back({enas->to_score(draws, i, k), reward});
    }
    enas->learn(i, children);
  }
  EXPECT_NEAR(mean_macs(*enas) / before, 1, 0.03);
}

TEST(Samplers, StateGoesOnBitForBit) {
  auto device = open_device("cpu", {.threads = 1});
  const SearchSpace space(base(), {});
  const ChoiceVector planted(space.length(), 1);
  SamplerConfig config = toy_config();
  config.iterations = 40;
  for (const char* name : {"enas", "random", "halving"}) {
    auto iterate = [&](Sampler& s, int64_t i) {
      std::vector<ScoredChild> children;
      for (int64_t k = 0; k < config.children; ++k) {
        PhiloxStream draws(3, RngUse::sample, static_cast<uint32_t>(i), static_cast<uint32_t>(k));
        const ChoiceVector c = s.to_score(draws, i, k);
        children.push_back({c, toy_reward(c, planted)});
      }
      s.learn(i, children);
      return children;
    };
    const auto whole = make_sampler(name, space, *device, config);
    for (int64_t i = 0; i < 20; ++i) iterate(*whole, i);
    TensorFile state;
    whole->save(state);
    SamplerConfig other = config;
    other.seed = 99;  // all that counts is in the state
    const auto resumed = make_sampler(name, space, *device, other);
    resumed->load(state);
    for (int64_t i = 20; i < 40; ++i) {
      const auto a = iterate(*whole, i), b = iterate(*resumed, i);
      for (size_t k = 0; k < a.size(); ++k)
        ASSERT_EQ(a[k].choices, b[k].choices) << name << " iteration " << i;
    }
  }
}

// One line that names the file; nothing is taken over.
TEST(Samplers, DamagedStatesAreRefused) {
  auto device = open_device("cpu", {.threads = 1});
  const SearchSpace space(base(), {});
  for (const char* name : {"enas", "halving"}) {
    const auto sampler = make_sampler(name, space, *device, toy_config());
    TensorFile good, after;
    good.path = "state.safetensors";
    sampler->save(good);
    const auto refused = [&](const TensorFile& bad, const std::string& part) {
      EXPECT_PRED_FORMAT2(testing::IsSubstring, "state.safetensors: " + part,
                          test::error_of([&] { sampler->load(bad); }));
    };
    for (const auto& [key, value] : good.metadata) {
      TensorFile bad = good;
      bad.metadata.erase(key);
      refused(bad, "not the state of a search: '" + key + "' is missing");
      bad.metadata[key] = "1 x";
      refused(bad, "not the state of a search: '" + key + "' ");
    }
    for (const auto& [key, tensor] : good.tensors) {
      TensorFile bad = good;
      bad.tensors[key] = StoredTensor::of(Shape{1, 2}, {7, 7});
      refused(bad, "belongs to another search space");
    }
    sampler->save(after);
    EXPECT_EQ(after.metadata, good.metadata);
    for (const auto& [key, tensor] : good.tensors) EXPECT_EQ(after.at(key).bytes, tensor.bytes) << key;
  }
}

// The streams are those of the journals that exist.
TEST(Samplers, EachHasDrawsOfItsOwn) {
  EXPECT_EQ(sampler_names(), (std::vector<std::string>{"enas", "random", "halving"}));
  for (uint32_t i = 0; i < 3; ++i) EXPECT_EQ(sampler_stream(sampler_names()[i]), i);
  EXPECT_EQ(test::error_of([] { sampler_stream("chance"); }), "no sampler named chance");
}

TEST(Samplers, HalvingKeepsTheBetterHalf) {
  SamplerConfig config = toy_config();
  const Outcome halving = search("halving", 4, config), random = search("random", 4, config);
  EXPECT_GT(halving.late, random.late + 0.1) << "the survivors are better than chance";
}

// Five networks, then three, then two; who led in an earlier round leads no more.
TEST(Samplers, HalvingGoesByTheMeansOfItsRound) {
  auto device = open_device("cpu", {.threads = 1});
  SamplerConfig config;
  config.iterations = 4;
  config.children = 5;
  const auto halving = make_sampler("halving", SearchSpace(base(), {}), *device, config);
  auto proposed = [&](int64_t iteration) {
    std::vector<ChoiceVector> choices;
    PhiloxStream draws(1, RngUse::sample);
    for (int64_t k = 0; k < config.children; ++k) choices.push_back(halving->to_score(draws, iteration, k));
    return choices;
  };
  const std::vector<ChoiceVector> c = proposed(0);
  halving->learn(0, {{c[0], 50}, {c[1], 40}, {c[2], 30}, {c[3], 20}, {c[4], 10}});
  EXPECT_EQ(proposed(1), (std::vector<ChoiceVector>{c[0], c[1], c[2], c[0], c[1]}));
  // Two of them are scored twice.
  halving->learn(1, {{c[0], 1}, {c[1], 2}, {c[2], 3}, {c[0], 1}, {c[1], 2}});
  EXPECT_EQ(proposed(2), (std::vector<ChoiceVector>{c[2], c[1], c[2], c[1], c[2]}));
  halving->learn(2, {{c[2], 1}, {c[1], 2}, {c[2], 1}, {c[1], 2}, {c[2], 1}});
  EXPECT_EQ(halving->status(), "2 networks left") << "the last round removes none";
}

TEST(Samplers, NothingToChooseIsAnError) {
  auto device = open_device("cpu", {.threads = 1});
  const SearchSpace one(base(), {{3}, {6}, {1}, {2}, {0}, {1}});
  EXPECT_EQ(one.size(), 1);
  EXPECT_THROW(make_sampler("enas", one, *device, {}), Error);
}

}  // namespace
}  // namespace gm
