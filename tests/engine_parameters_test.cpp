// How parameters begin, and their copies in bf16.
#include "engine/parameters.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "engine/session.h"

namespace gm {
namespace {

// Keras's VarianceScaling: the variance is scale / fan, a normal ends at two sigma of the one before the cut.
TEST(EngineParameters, InitializersHaveTheVarianceAskedFor) {
  auto device = open_device("cpu", {.threads = 2});
  ParameterTable table;
  const double variance = 2. / 50, n = 200000;
  const int normal = table.add("normal", {200000}, {Initializer::truncated_normal, 50, 2}, true, true),
            uniform = table.add("uniform", {200000}, {Initializer::uniform, 50, 2}, true, true),
            zeros = table.add("zeros", {3}, {Initializer::zeros}, true, true),
            ones = table.add("ones", {3}, {Initializer::ones}, false, false);
  Weights weights(*device, table, false, false);
  weights.initialize(table, 7);
  for (const auto& [at, limit] : {std::pair{normal, 2 * std::sqrt(variance) / 0.87962566103423978},
                                  {uniform, std::sqrt(3 * variance)}}) {
    SCOPED_TRACE(table[at].name);
    double sum = 0, squares = 0, most = 0;
    for (const float x : weights.download(table[at])) {
      sum += x;
      squares += double(x) * x;
      most = std::max(most, std::abs(double(x)));
    }
    EXPECT_NEAR(sum / n, 0, 4 * std::sqrt(variance / n));
    EXPECT_NEAR(squares / n, variance, 0.01 * variance);
    EXPECT_LE(most, limit * 1.000001);
    EXPECT_GT(most, limit * 0.999);
  }
  EXPECT_EQ(weights.download(table[zeros]), std::vector<float>(3, 0.f));
  EXPECT_EQ(weights.download(table[ones]), std::vector<float>(3, 1.f));
}

TEST(EngineParameters, CopiesInBf16AreMadeToTheLastElement) {
  auto device = open_device("cpu", {.threads = 2});
  ParameterTable table;
  // Copied in pieces of 2^18.
  const int first = table.add("first", {3}, {Initializer::uniform, 1, 1}, true, true),
            large = table.add("large", {600000}, {Initializer::uniform, 1, 1}, true, true);
  Weights weights(*device, table, true, false);
  weights.initialize(table, 7);
  for (const int at : {first, large}) {
    std::vector<float> rounded = weights.download(table[at]);
    for (float& x : rounded) x = to_float(to_bf16(x));
    EXPECT_EQ(to_host(*device, weights.value(table[at], DType::bf16)), rounded) << table[at].name;
  }
}

}  // namespace
}  // namespace gm
