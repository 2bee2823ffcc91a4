// Children of one pool: which slices they hold, what training changes, and that the memory they share tells
// nothing.
#include <gtest/gtest.h>

#include "kernels/common/philox.h"
#include "layers/samplers.h"
#include "layers/shared_weights.h"

namespace gm {
namespace {

Architecture base() {
  Architecture a;
  a.name = "base";
  a.classes = 5;
  a.input_size = 16;
  a.bn_momentum = 0.9;
  a.stem_filters = 8;
  a.stages = {{BlockType::mbconv, 1, 3, 1, 16, 1}, {BlockType::mbconv, 3, 3, 2, 24, 2}};
  a.head_filters = 32;
  return a;
}

SearchSpace space() {
  return SearchSpace(base(), {{3, 5}, {1, 3}, {0.75, 1, 1.25}, {1, 2}, {0, 0.25}, {1, 0}});
}

HostBatch batch(int64_t n, uint32_t seed) {
  HostBatch b;
  b.count = n;
  PhiloxStream rng(seed, RngUse::sample, 1);
  for (int64_t i = 0; i < n * 16 * 16 * 3; ++i) b.pixels.push_back(static_cast<float>(255 * rng.uniform()));
  for (int64_t i = 0; i < n; ++i) b.labels.push_back(static_cast<int32_t>(rng.below(5)));
  return b;
}

ChildOptions options() {
  ChildOptions o;
  o.batch = 6;
  o.optimizer.kind = OptimizerConfig::adamw;
  o.optimizer.lr = 1e-2;
  return o;
}

// Element of a tensor by index, written out anew: leading channels, centred kernels.
float pool_value(const SharedWeights& pool, const Parameter& child, const std::vector<int64_t>& index) {
  const Parameter& p = pool.table()[pool.table().find(child.name)];
  std::vector<int64_t> at = index;
  if (p.shape.rank == 4)
    for (int d : {1, 2}) at[d] += p.shape[d] / 2 - child.shape[d] / 2;
  if (p.shape.rank == 3)
    for (int d : {0, 1}) at[d] += p.shape[d] / 2 - child.shape[d] / 2;
  int64_t flat = 0;
  for (int d = 0; d < p.shape.rank; ++d) flat = flat * p.shape[d] + at[d];
  return pool.buffer(SharedWeights::values)[p.offset + flat];
}

TEST(SharedWeights, ChildrenHoldLeadingChannelsAndCentredKernels) {
  const SearchSpace s = space();
  const SharedWeights pool(s, 3);
  PhiloxStream rng(2, RngUse::sample);
  for (int n = 0; n < 8; ++n) {
    const Architecture a = s.network(uniform_choices(s, rng));
    ParameterTable child;
    build_network(a, child, {.training = true});
    std::vector<float> flat(child.trainable_elements(), -7.f);
    for (const SliceRun& r : pool.slices(child))
      std::copy_n(pool.buffer(SharedWeights::values).data() + r.pool, r.length, flat.data() + r.child);
    for (const Parameter& p : child) {
      if (!p.trainable) continue;
      std::vector<int64_t> index(p.shape.rank, 0);
      for (int64_t i = 0; i < p.shape.numel(); ++i) {
        int64_t rest = i;
        for (int d = p.shape.rank - 1; d >= 0; --d) index[d] = rest % p.shape[d], rest /= p.shape[d];
        ASSERT_EQ(flat[p.offset + i], pool_value(pool, p, index)) << p.name << " " << i;
      }
    }
  }
}

TEST(SharedWeights, TrainingChangesTheChildsSlicesAndNothingElse) {
  auto device = open_device("cpu", {.threads = 1});
  const SearchSpace s = space();
  SharedWeights pool(s, 3);
  const Architecture a = s.network({0, 1, 0, 0, 1, 0, 0, 1, 1, 1, 0, 0});
  ChildNetwork child(*device, a, pool, options(), nullptr);
  const std::vector<float> before = pool.buffer(SharedWeights::values);
  child.train(pool, batch(6, 1), 1e-2, 0);

  ParameterTable table;
  build_network(a, table, {.training = true});
  std::vector<char> mine(before.size(), 0);
  for (const SliceRun& r : pool.slices(table)) std::fill_n(mine.begin() + r.pool, r.length, char{1});
  int64_t changed = 0, own = 0;
  for (size_t i = 0; i < before.size(); ++i) {
    own += mine[i];
    changed += mine[i] && pool.buffer(SharedWeights::values)[i] != before[i];
    if (!mine[i]) {
      ASSERT_EQ(pool.buffer(SharedWeights::values)[i], before[i]) << i;
      ASSERT_EQ(pool.buffer(SharedWeights::moment1)[i], 0.f) << i;
    }
  }
  EXPECT_EQ(own, table.trainable_count());
  EXPECT_GT(changed, own * 9 / 10);
}

// A child of its own memory and fresh, against one of the cache that has run among others.
TEST(SharedWeights, CachedChildrenGiveTheSameBits) {
  auto device = open_device("cpu", {.threads = 2});
  const SearchSpace s = space();
  // Five networks in turn never meet again in a cache of four; one of five keeps their weights and moments,
  // which are others' by the next time.
  for (const auto& [capacity, built] : {std::pair{4, 12}, {5, 5}}) {
    SharedWeights one(s, 3), two(s, 3);
    ChildCache cache(*device, s, one, options(), capacity);
    for (int64_t step = 0; step < 12; ++step) {
      PhiloxStream rng(5, RngUse::sample, static_cast<uint32_t>(step % 5));
      const ChoiceVector c = uniform_choices(s, rng);
      const HostBatch b = batch(6, static_cast<uint32_t>(step));
      ChildNetwork fresh(*device, s.network(c), two, options(), nullptr);
      ASSERT_EQ(cache.child(c).train(one, b, 1e-2, step), fresh.train(two, b, 1e-2, step)) << step;
      cache.child(c).load(one);
      fresh.load(two);
      ASSERT_EQ(cache.child(c).logits(b), fresh.logits(b)) << step;
      // Scoring changes nothing.
      for (const auto part : SharedWeights::kParts) ASSERT_EQ(one.buffer(part), two.buffer(part)) << step;
    }
    EXPECT_EQ(cache.built(), built) << capacity;
  }
}

// Shared weights see each network for a few steps only: noise of its own would be all that is left.
TEST(SharedWeights, ChildrenDropNothing) {
  auto device = open_device("cpu", {.threads = 1});
  Architecture noisy = base();
  noisy.dropout = noisy.stochastic_depth = 0.5;
  noisy.hidden.dropout = 0.5;
  std::vector<double> losses;
  for (const Architecture& a : {base(), noisy}) {
    const SearchSpace s(a, {{3}, {3}, {1}, {2}, {0}, {1}});
    SharedWeights pool(s, 3);
    ChildNetwork child(*device, s.largest(), pool, options(), nullptr);
    losses.push_back(child.train(pool, batch(6, 1), 1e-2, 0));
  }
  EXPECT_EQ(losses[0], losses[1]);
}

TEST(SharedWeights, OneChildLearns) {
  auto device = open_device("cpu", {.threads = 2});
  const SearchSpace s = space();
  SharedWeights pool(s, 3);
  ChildCache cache(*device, s, pool, options(), 3);
  PhiloxStream rng(5, RngUse::sample);
  const ChoiceVector c = uniform_choices(s, rng);
  const HostBatch b = batch(6, 1);
  const double first = cache.child(c).train(pool, b, 1e-2, 0);
  double last = first;
  for (int64_t step = 1; step < 30; ++step) last = cache.child(c).train(pool, b, 1e-2, step);
  EXPECT_LT(last, 0.3 * first);
  EXPECT_EQ(cache.built(), 1);
}

// With squeeze-and-excitation joined to the convolution before it, as gm_train trains on a card.
TEST(SharedWeights, ChildrenAreFusedForTheirDevice) {
  const SearchSpace s = space();
  double losses[2];
  for (const char* name : {"cpu", "simt"}) {
    const bool card = name == std::string("simt");
    auto device = open_device(name);
    SharedWeights pool(s, 3);
    ChildNetwork child(*device, s.largest(), pool, options(), nullptr);
    int joined = 0;
    for (const Node& n : child.session().graph().nodes()) joined += n.op->name == "depthwise_bn_se";
    EXPECT_EQ(joined > 0, card) << name;
    losses[card] = child.train(pool, batch(6, 1), 1e-2, 0);
  }
  EXPECT_NEAR(losses[1], losses[0], 1e-5 * losses[0]);
}

TEST(SharedWeights, StateOfAnotherSpaceIsRefused) {
  const SearchSpace s = space();
  SharedWeights pool(s, 3), other(SearchSpace(base(), {{3}, {1, 3}, {1}, {1}, {0}, {1}}), 3);
  TensorFile file;
  pool.save(file);
  EXPECT_THROW(other.load(file), Error);
  SharedWeights again(s, 4);
  EXPECT_NE(again.buffer(SharedWeights::values), pool.buffer(SharedWeights::values));
  again.load(file);
  EXPECT_EQ(again.buffer(SharedWeights::values), pool.buffer(SharedWeights::values));
}

}  // namespace
}  // namespace gm
