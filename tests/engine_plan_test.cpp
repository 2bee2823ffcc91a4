// The planner: no two live tensors share memory, in-place sharing only where nobody reads later, gradients of
// values with several consumers are accumulated.
#include "engine/plan.h"

#include <gtest/gtest.h>

#include <set>

#include "engine/budget.h"
#include "layers/network.h"
#include "layers/rewrites.h"

namespace gm {
namespace {

Architecture small_network() {
  Architecture a;
  a.classes = 3;
  a.input_size = 16;
  a.stem_filters = 8;
  a.stages = {{.block = BlockType::mbconv, .expand = 1, .filters = 8, .layers = 2},
              {.block = BlockType::mbconv, .expand = 4, .stride = 2, .filters = 16, .layers = 2, .se = 0.25}};
  a.head_filters = 24;
  a.dropout = 0.2;
  a.stochastic_depth = 0.2;
  return a;
}

int root(const Plan& p, int slot) {
  while (p.slots[slot].shares >= 0) slot = p.slots[slot].shares;
  return slot;
}

void expect_no_overlap(const Plan& plan) {
  int overlaps = 0;
  for (size_t i = 0; i < plan.slots.size(); ++i)
    for (size_t j = i + 1; j < plan.slots.size(); ++j) {
      const Slot &a = plan.slots[i], &b = plan.slots[j];
      if (a.outside || b.outside || root(plan, int(i)) == root(plan, int(j))) continue;
      const bool together = a.first <= b.last && b.first <= a.last;
      const bool same_memory = a.offset < b.offset + b.spec.bytes() && b.offset < a.offset + a.spec.bytes();
      overlaps += together && same_memory;
    }
  EXPECT_EQ(overlaps, 0);
  for (const Slot& s : plan.slots) EXPECT_LE(s.offset + s.spec.bytes(), plan.arena_bytes);
}

enum class Mode { inference, training, recompute };

TEST(EnginePlan, LiveTensorsNeverOverlap) {
  for (bool fused : {false, true})
    for (Mode mode : {Mode::inference, Mode::training, Mode::recompute}) {
      const bool training = mode != Mode::inference;
      ParameterTable table;
      NetworkGraph g = build_network(small_network(), table, {.batch = 5, .training = training});
      if (fused) g = fuse_for_training(g);
      PlanOptions options{
          .training = training, .keep = {g.loss, g.logits}, .recompute = mode == Mode::recompute};
      if (training) options.loss = g.loss;
      const Plan plan = make_plan(g.graph, options);
      expect_no_overlap(plan);
      // No plan can be smaller than the bytes alive at the worst step; first fit must come close to that.
      size_t peak = 0;
      for (int at = 0; at < static_cast<int>(plan.steps.size()); ++at) {
        std::set<int> roots;
        size_t alive = 0;
        for (size_t i = 0; i < plan.slots.size(); ++i) {
          const Slot& s = plan.slots[i];
          if (!s.outside && s.first <= at && at <= s.last && roots.insert(root(plan, int(i))).second)
            alive += s.spec.bytes();
        }
        peak = std::max(peak, alive);
      }
      EXPECT_GE(plan.arena_bytes, peak);
      EXPECT_LE(static_cast<double>(plan.arena_bytes), 1.15 * static_cast<double>(peak)) << "fused " << fused;
    }
}

// Every read finds what the last step that wrote this value has put there: with segments run twice, the
// second time's results, or values that were kept from the first.
TEST(EnginePlan, RepeatedStepsComeBeforeTheBackwardStepsThatNeedThem) {
  ParameterTable table;
  const NetworkGraph g = build_network(small_network(), table, {.batch = 5, .training = true});
  const Plan plan = make_plan(g.graph, {.training = true, .loss = g.loss, .recompute = true});
  std::set<int> repeated, done;  // segments: with repeated steps, with a backward step
  for (size_t i = 0; i < plan.steps.size(); ++i) {
    const Step& s = plan.steps[i];
    const int segment = g.graph.nodes()[s.node].segment;
    EXPECT_TRUE(!s.again || i >= plan.backward_begin);
    if (s.again) {
      repeated.insert(segment);
      EXPECT_FALSE(done.count(segment)) << "repeated after its first backward step";
    }
    if (s.pass == Pass::backward) done.insert(segment);
    for (const auto* list : {&s.in, &s.saved, &s.dout})
      for (int slot : *list)
        if (slot >= 0) {
          EXPECT_LE(plan.slots[slot].first, static_cast<int>(i));
          EXPECT_GE(plan.slots[slot].last, static_cast<int>(i));
        }
  }
  EXPECT_TRUE(repeated.count(0)) << "the stem's activations live longest";
  // The last segments' activations are dead at the peak, so nothing is gained by repeating them.
  EXPECT_FALSE(repeated.count(g.graph.nodes().back().segment));
}

TEST(EnginePlan, RecomputationFitsTheFirstPapersNetworkIntoEightGigabytes) {
  const std::string path = std::string(GM_SOURCE_DIR) + "/models/effv2s_cbam.yaml";
  const Architecture a = read_architecture(load_config(path, {}), path);
  ASSERT_EQ(a.input_size, 224);
  BuildOptions build{.batch = 64, .training = true};
  ParameterTable table;
  const NetworkGraph train = fuse_for_training(build_network(a, table, build));
  build.training = false;
  const FoldedNetwork eval(build_network(a, table, build));
  const MemoryBudget kept = training_budget(train, eval.net, {}),
                     again = training_budget(train, eval.net, {.recompute = true});
  const size_t activations = again.bytes("training activations");
  EXPECT_LT(again.total(), size_t{8'000'000'000});
  EXPECT_LT(activations, kept.bytes("training activations") / 5);
  EXPECT_NE(again.rows()[3].note.find(mib_text(kept.bytes("training activations"))), std::string::npos)
      << "the budget shows both: " << again.rows()[3].note;
}

TEST(EnginePlan, KeptValuesSurviveTheRun) {
  ParameterTable table;
  const NetworkGraph g = build_network(small_network(), table, {.batch = 2});
  const ValueId kept = g.graph.output_of("stem_bn");
  const Plan plan = make_plan(g.graph, {.keep = {kept}});
  const int slot = plan.value_slot[kept];
  for (const Slot& s : plan.slots) EXPECT_NE(s.shares, slot) << "something writes over the kept value";
  EXPECT_GE(plan.slots[slot].last, static_cast<int>(plan.steps.size()));
}

TEST(EnginePlan, KeptGradientsSurviveTheRun) {
  ParameterTable table;
  const NetworkGraph g = build_network(small_network(), table, {.batch = 2});
  const ValueId kept = g.graph.output_of("block1b_add");
  const Plan plan = make_plan(g.graph, {.training = true, .loss = g.loss, .keep_gradient = {kept}});
  const int slot = plan.gradient_slot[kept];
  for (const Slot& s : plan.slots) EXPECT_NE(s.shares, slot) << "something writes over the kept gradient";
  EXPECT_GE(plan.slots[slot].last, static_cast<int>(plan.steps.size()));
  expect_no_overlap(plan);
  EXPECT_THROW(make_plan(g.graph, {.training = true, .loss = g.loss, .keep_gradient = {g.pixels}}), Error);
}

// Of an input that enters late, backward writes the gradient long before its end.
TEST(EnginePlan, GradientsOfInputsSurviveTheRun) {
  ParameterTable table;
  Graph g(table);
  const TensorSpec spec{Shape{2, 4}, DType::f32};
  const ValueId early = g.input("early", spec), late = g.input("late", spec);
  g.values()[late].wants_gradient = true;
  auto linear = [&](ValueId x, const char* name) {
    return g.add1("linear", {}, {x, g.parameter(name, Shape{4, 4}, Initializer::dense(4)), kAbsent}, name);
  };
  const ValueId sum = g.add1("add", {}, {linear(linear(early, "a"), "b"), late}, "sum");
  const Plan plan = make_plan(g, {.training = true, .loss = linear(sum, "c")});
  const int slot = plan.gradient_slot[late];
  ASSERT_GE(slot, 0);
  EXPECT_GE(plan.slots[slot].last, static_cast<int>(plan.steps.size()));
  for (const Slot& s : plan.slots) EXPECT_NE(s.shares, slot) << "something writes over it";
  expect_no_overlap(plan);
}

TEST(EnginePlan, SharedValuesAccumulateTheirGradients) {
  ParameterTable table;
  Graph g(table);
  const ValueId x = g.input("x", {Shape{2, 4}, DType::f32});
  g.values()[x].wants_gradient = true;
  const ValueId w = g.parameter("w", Shape{4, 4}, Initializer::dense(4));
  const ValueId a = g.add1("linear", {}, {x, w, kAbsent}, "a");
  const ValueId b = g.add1("linear", {}, {a, w, kAbsent}, "b");  // the same weights again
  const ValueId sum = g.add1("add", {}, {a, b}, "sum");          // a is read twice
  const Plan plan = make_plan(g, {.training = true, .loss = sum});
  int overwritten = 0, accumulated = 0, a_accumulated = 0;
  for (size_t i = plan.backward_begin; i < plan.steps.size(); ++i) {
    const Step& s = plan.steps[i];
    const Node& n = g.nodes()[s.node];
    for (size_t k = 0; k < n.in.size(); ++k) {
      if (n.in[k] == w) (s.mode[k] == GradMode::overwrite ? overwritten : accumulated)++;
      if (n.in[k] == a && s.mode[k] == GradMode::accumulate) ++a_accumulated;
    }
  }
  EXPECT_EQ(overwritten, 1);
  EXPECT_EQ(accumulated, 1);
  EXPECT_EQ(a_accumulated, 1);
  EXPECT_GE(plan.gradient_slot[x], 0);
}

// The gradient of a residual is that of the result: no copy, no memory.
TEST(EnginePlan, ResidualGradientsLieInThePlaceOfTheResult) {
  ParameterTable table;
  const NetworkGraph g =
      fuse_for_training(build_network(small_network(), table, {.batch = 2, .training = true}));
  const Plan plan = make_plan(g.graph, {.training = true, .loss = g.loss});
  int residuals = 0;
  for (size_t i = plan.backward_begin; i < plan.steps.size(); ++i) {
    const Step& s = plan.steps[i];
    if (g.graph.nodes()[s.node].op->name != "conv_bn_act" || s.din.size() < 5) continue;
    EXPECT_EQ(s.mode[4], GradMode::overwrite);
    EXPECT_EQ(root(plan, s.din[4]), root(plan, s.dout[0]));
    ++residuals;
  }
  EXPECT_EQ(residuals, 3);
}

TEST(EnginePlan, FrozenParametersAndWhatOnlyLeadsToThemGetNoGradient) {
  ParameterTable table;
  const NetworkGraph g = build_network(small_network(), table, {.batch = 2, .training = true});
  for (int i = 0; i < table.size(); ++i) table[i].frozen = table[i].name.rfind("predictions", 0) != 0;
  const Plan plan = make_plan(g.graph, {.training = true, .loss = g.loss});
  // Only the loss and the dense layer have a backward step; nothing flows further down.
  EXPECT_EQ(plan.steps.size() - plan.backward_begin, 2u);
}

}  // namespace
}  // namespace gm
