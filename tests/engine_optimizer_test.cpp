// Clipping and averaging around the optimizer's kernel, against both written out in doubles.
#include "engine/optimizer.h"

#include <gtest/gtest.h>

#include <cmath>

#include "kernels/common/philox.h"

namespace gm {
namespace {

/// A device, and the batches of an update.
class Optimizing : public testing::TestWithParam<std::tuple<const char*, int64_t>> {};

TEST_P(Optimizing, ClipsByTheGlobalNormAndAveragesAsKerasAndTensorFlowDo) {
  const auto [name, batches] = GetParam();
  auto device = open_device(name, {.threads = 2});
  ParameterTable table;
  table.add("a", {3, 5}, {Initializer::uniform, 1, 1}, true, true);
  table.add("b", {70}, {Initializer::uniform, 1, 1}, true, false);  // after a gap: parameters are aligned
  Weights weights(*device, table, false, true);
  weights.initialize(table, 3);
  const double each = static_cast<double>(batches), limit = 5 / each;
  const OptimizerConfig config{.kind = OptimizerConfig::sgd,
                               .lr = 0.1,
                               .momentum = 0,
                               .clip_norm = limit,
                               .accumulate = batches,
                               .average = 0.6};
  Optimizer optimizer(*device, config, table, weights);
  EXPECT_EQ(optimizer.bytes(), optimizer_bytes(config, table));
  optimizer.start_average();

  std::vector<std::vector<double>> p, average;
  for (const Parameter& parameter : table) {
    const auto v = weights.download(parameter);
    p.emplace_back(v.begin(), v.end());
  }
  average = p;
  PhiloxStream rng(1, RngUse::sample);
  int clipped = 0;
  for (int step = 0; step < 12; ++step) {
    // Sums of gradients with norms of about 9.2 and 2.8 in turn.
    const double size = step % 2 ? 0.5 : 1.7;
    std::vector<std::vector<float>> g;
    double squares = 0;
    for (int i = 0; i < table.size(); ++i) {
      g.emplace_back(p[i].size());
      for (float& x : g[i]) x = static_cast<float>(rng.uniform(-size, size)), squares += double(x) * x;
      device->upload(weights.gradient(table[i]).data, g[i].data(), g[i].size() * sizeof(float));
    }
    optimizer.update(config.lr, step);
    const double norm = std::sqrt(squares) / each, scale = limit / std::max(norm, limit) / each;
    clipped += norm > limit;
    const double decay = std::min(0.6, (1. + step) / (10. + step));
    for (int i = 0; i < table.size(); ++i)
      for (size_t k = 0; k < p[i].size(); ++k) {
        p[i][k] -= 0.1 * scale * g[i][k];
        average[i][k] = decay * average[i][k] + (1 - decay) * p[i][k];
      }
  }
  EXPECT_EQ(clipped, 6);
  auto expect = [&](const std::vector<std::vector<double>>& want, const char* what) {
    for (int i = 0; i < table.size(); ++i) {
      const auto got = weights.download(table[i]);
      for (size_t k = 0; k < got.size(); ++k)
        EXPECT_NEAR(got[k], want[i][k], 2e-6) << what << ' ' << i << ' ' << k;
    }
  };
  expect(p, "parameters");
  optimizer.with_average([&] { expect(average, "average"); });
  EXPECT_THROW(optimizer.with_average([] { fail("stop"); }), Error);
  expect(p, "parameters again");
}

INSTANTIATE_TEST_SUITE_P(Devices, Optimizing,
                         testing::Combine(testing::Values("cpu", "simt"), testing::Values(1, 3)),
                         [](const auto& info) {
                           return std::get<0>(info.param) + std::string("_batches_") +
                                  std::to_string(std::get<1>(info.param));
                         });

}  // namespace
}  // namespace gm
