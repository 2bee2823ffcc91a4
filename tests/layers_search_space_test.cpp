// The search space: G0 in it with its exact counts, every vector a network, slices of one largest network.
#include <gtest/gtest.h>

#include <cmath>

#include "kernels/common/backends.h"
#include "kernels/common/error.h"
#include "kernels/common/philox.h"
#include "layers/network.h"
#include "layers/search_space.h"

namespace gm {
namespace {

Architecture g0(int size = 64) {
  const std::string path = std::string(GM_SOURCE_DIR) + "/models/effg0.yaml";
  Architecture a = read_architecture(load_config(path, {}), path);
  a.input_size = size;
  return a;
}

SpaceOptions options(const std::string& yaml) {
  return read_space_options(Section(parse_yaml(yaml, "space"), "search.space", "space.yaml"));
}

std::string refusal(const std::string& yaml) {
  try {
    options(yaml);
  } catch (const Error& e) {
    return e.what();
  }
  return "accepted";
}

// kernel 3 5 | expansion 1 3 6 | width .75 1 1.25 | layers 1 2 3 4 | SE 0 .25 | skip with, without
const ChoiceVector kG0{0, 0, 1, 0, 0, 0, 0, 2, 1, 1, 0, 0, 1, 2, 1, 1, 0, 0, 0, 2, 1, 2, 0, 0};

TEST(SearchSpace, G0IsAFixedChoiceVector) {
  const SearchSpace space(g0(), {});
  const Architecture a = space.network(kG0);
  EXPECT_EQ(a.stages, g0().stages);
  const NetworkSize size = network_size(a);
  EXPECT_EQ(size.parameters, 269445);  // spec 1.2
  EXPECT_EQ(size.macs, 14616096);
  EXPECT_EQ(architecture_yaml(a), architecture_yaml(g0()));
  EXPECT_EQ(space.choices_of(g0()), std::optional(ChoiceVector{0, 0, 0, 0, 0, 0, 0, 2, 1, 1, 0, 0,
                                                               1, 2, 1, 1, 0, 0, 0, 2, 1, 2, 0, 0}))
      << "16 x 0.75 rounds to 16 too, and is the first";
  EXPECT_EQ(space.size(), std::pow(2. * 3 * 3 * 4 * 2 * 2, 4));
  EXPECT_EQ(SearchSpace::text(a), "k3 e1 w16 n1, k3 e6 w24 n2, k5 e6 w40 n2, k3 e6 w80 n3");
}

TEST(SearchSpace, WidthsAreMultiplesOfEight) {
  const SearchSpace space(g0(), {});
  std::vector<std::vector<int>> widths(3);
  for (int w = 0; w < 3; ++w) {
    ChoiceVector c = kG0;
    for (int stage = 0; stage < 4; ++stage) c[stage * kChoiceKinds + 2] = w;
    for (const StageSpec& s : space.network(c).stages) widths[w].push_back(s.filters);
  }
  EXPECT_EQ(widths[0], (std::vector<int>{16, 16, 32, 64}));
  EXPECT_EQ(widths[1], (std::vector<int>{16, 24, 40, 80}));
  EXPECT_EQ(widths[2], (std::vector<int>{24, 32, 48, 104}));
}

TEST(SearchSpace, EveryTensorOfAChildFitsInTheLargest) {
  const SearchSpace space(g0(), {});
  ParameterTable largest;
  build_network(space.largest(), largest, {.training = true});
  PhiloxStream rng(1, RngUse::sample);
  for (int n = 0; n < 50; ++n) {
    ChoiceVector c;
    for (int i = 0; i < space.length(); ++i) c.push_back(static_cast<int>(rng.below(space.options_at(i))));
    const Architecture a = space.network(c);
    ParameterTable child;
    build_network(a, child, {.training = true});
    for (const Parameter& p : child) {
      const int i = largest.find(p.name);
      ASSERT_GE(i, 0) << p.name << " of " << SearchSpace::text(a);
      ASSERT_EQ(largest[i].shape.rank, p.shape.rank);
      for (int d = 0; d < p.shape.rank; ++d) EXPECT_GE(largest[i].shape[d], p.shape[d]) << p.name;
    }
    const auto again = space.choices_of(a);
    ASSERT_TRUE(again);
    EXPECT_EQ(space.network(*again).stages, a.stages);
  }
}

TEST(SearchSpace, WithoutResidualThereIsNoAdd) {
  const SearchSpace space(g0(), {});
  ChoiceVector c = kG0;
  auto adds = [&] {
    ParameterTable table;
    int n = 0;
    const NetworkGraph net = build_network(space.network(c), table, {});
    for (const Node& node : net.graph.nodes()) n += node.op->name == "add";
    return n;
  };
  EXPECT_EQ(adds(), 4);  // second layers of three stages, third of the last
  c[3 * kChoiceKinds + 5] = 1;
  EXPECT_EQ(adds(), 2);
  const Architecture a = space.network(c);
  const std::string yaml = architecture_yaml(a);
  EXPECT_EQ(read_architecture(parse_yaml(yaml, "a"), "a").stages, a.stages);
  EXPECT_EQ(SearchSpace::text(a), "k3 e1 w16 n1, k3 e6 w24 n2, k5 e6 w40 n2, k3 e6 w80 n3 plain");
}

TEST(SearchSpace, ImpossibleSpacesAreOneLine) {
  EXPECT_NE(refusal("kernel: []").find("space.yaml:1: search.space.kernel: the space is empty"),
            std::string::npos);
  EXPECT_NE(refusal("kernel: [3, 4]").find("must be odd"), std::string::npos);
  EXPECT_NE(refusal("kernel: [3, 3]").find("twice"), std::string::npos);
  EXPECT_NE(refusal("layers: [0, 1]").find("in [1, 100]"), std::string::npos);
  EXPECT_NE(refusal("layers: [1.5]").find("whole numbers"), std::string::npos);
  EXPECT_NE(refusal("layers: 2").find("must be a list"), std::string::npos);
  EXPECT_NE(refusal("residual: []").find("the space is empty"), std::string::npos);
  EXPECT_NE(refusal("residual: [yes]").find("true and false"), std::string::npos);
  EXPECT_NE(refusal("kernels: [3]").find("did you mean 'kernel'"), std::string::npos);
  EXPECT_EQ(refusal("residual: [true]"), "accepted");

  const SearchSpace space(g0(), {});
  ChoiceVector c = kG0;
  c[7] = 3;
  try {
    space.network(c);
    FAIL();
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("expand of stage 2"), std::string::npos) << e.what();
  }
  EXPECT_THROW(space.network({0, 1}), Error);
}

TEST(SearchSpace, ProposesNothingAboveTheCap) {
  install_cpu_kernels();
  SpaceOptions capped;
  capped.max_macs = network_size(g0()).macs;
  const SearchSpace space(g0(), capped);
  const ChoiceVector base = *space.choices_of(space.base());
  EXPECT_TRUE(space.allows(base)) << "the cap itself is allowed";
  ChoiceVector larger = base;
  larger[0] = 1;  // kernel 5 in the first stage
  EXPECT_GT(network_size(space.network(larger)).macs, capped.max_macs);
  EXPECT_FALSE(space.allows(larger));
  int draws = 0;
  EXPECT_EQ(space.first_allowed([&] { return ++draws < 4 ? larger : base; }), base);
  EXPECT_EQ(draws, 4);
  EXPECT_THROW(space.first_allowed([&] { return larger; }), Error);
}

TEST(SearchSpace, OptionsEndAtTheirLimits) {
  EXPECT_NE(refusal("kernel: [3, 13]").find("in [1, 11]"), std::string::npos);
  EXPECT_NE(refusal("residual: [true, true]").find("twice"), std::string::npos);
  EXPECT_EQ(refusal("residual: [false, true]"), "accepted");
}

TEST(SearchSpace, OtherStemsAndHeadsAreNotInIt) {
  const SearchSpace space(g0(), {});
  auto known = [&](auto&& change) {
    Architecture a = g0();
    change(a);
    return space.choices_of(a).has_value();
  };
  EXPECT_TRUE(known([](Architecture& a) { a.input_size = 96; }));
  EXPECT_FALSE(known([](Architecture& a) { a.stem_filters = 24; }));
  EXPECT_FALSE(known([](Architecture& a) { a.stem_kernel = 3; }));
  EXPECT_FALSE(known([](Architecture& a) { a.stem_stride = 1; }));
  EXPECT_FALSE(known([](Architecture& a) { a.head_filters += 8; }));
  EXPECT_FALSE(known([](Architecture& a) { a.stages.pop_back(); }));
  EXPECT_FALSE(known([](Architecture& a) { a.stages[0].stride = 2; }));
}

TEST(SearchSpace, SqueezeIsInTheText) {
  const SearchSpace space(g0(), {});
  ChoiceVector c = kG0;
  c[kChoiceKinds + 4] = 1;
  EXPECT_EQ(SearchSpace::text(space.network(c)),
            "k3 e1 w16 n1, k3 e6 w24 n2 se0.25, k5 e6 w40 n2, k3 e6 w80 n3");
}

TEST(SearchSpace, ABaseOfOtherBlocksIsRefused) {
  Architecture a = g0();
  a.stages[1].block = BlockType::fused_mbconv;
  try {
    const SearchSpace space(a, {});
    ADD_FAILURE() << "accepted";
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("stage 2"), std::string::npos) << e.what();
  }
}

}  // namespace
}  // namespace gm
