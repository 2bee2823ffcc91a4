// A training step and inference of the full-size networks against Keras, torchvision and timm in float64
// (golden/make_framework_golden.py). Weights go in through the importer and gradients come out through the
// exporter: every tensor is compared under the framework's own name and in its own layout.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <sstream>

#include "engine/session.h"
#include "engine/weight_file.h"
#include "layers/import.h"
#include "layers/rewrites.h"
#include "tests/golden_draws.h"
#include "tests/vectors.h"

namespace gm {
namespace {

using namespace test;

struct Case {
  const char* name;  // of the golden file
  Framework framework;
  const char* config;
  int size;
};
void PrintTo(const Case& c, std::ostream* out) { *out << c.name << " " << c.size; }

// Largest relative L2 errors. zero: norm of the gradients that are zero (shifts that the next batch norm
// removes) as a share of the norm of all.
struct Errors {
  double logits = 0, loss = 0, gradient = 0, median = 0, zero = 0, statistics = 0;
  std::string worst;  // gradient
  int zeros = 0;
};

class FrameworkGolden : public testing::TestWithParam<Case> {
 protected:
  FrameworkGolden()
      : golden(read_safetensors(std::string(GM_SOURCE_DIR) + "/tests/golden/frameworks/" + GetParam().name +
                                ".safetensors")) {
    const std::string path = std::string(GM_SOURCE_DIR) + "/models/" + GetParam().config;
    a = read_architecture(load_config(path), path);
    adopt_conventions(a, GetParam().framework, "tf_efficientnetv2_s");
    a.dropout = a.stochastic_depth = 0;
    a.input_size = GetParam().size;
    build(false);  // fills the table
    std::istringstream lines(golden.metadata.at("names"));
    for (std::string name; std::getline(lines, name);) names.push_back(name);
  }

  NetworkGraph build(bool training, DType dtype = DType::f32) {
    return build_network(a, table,
                         {.batch = at("labels").spec.shape[0], .training = training, .dtype = dtype});
  }
  const StoredTensor& at(const std::string& name) {
    return golden.at(std::to_string(a.input_size) + "/" + name);
  }

  // The golden weights in the engine's layout.
  TensorFile draw_weights() {
    TensorFile blank;
    for (const Parameter& p : table)
      blank.tensors[p.name] = StoredTensor::of(p.shape, std::vector<float>(p.shape.numel()));
    TensorFile theirs = export_weights(blank, a, GetParam().framework);
    EXPECT_EQ(theirs.tensors.size(), names.size());
    const auto draws = golden.at("draws").floats(), statistics = golden.at("statistics").floats();
    auto distribution = draws.begin(), statistic = statistics.begin();
    for (const std::string& name : names) {
      StoredTensor& t = theirs.tensors.at(name);
      std::vector<float> values(static_cast<size_t>(t.spec.shape.numel()));
      if (is_statistic(name)) {
        for (float& v : values) v = *statistic++;
      } else {
        Bits bits(name);
        for (float& v : values) v = bits.uniform(distribution[0], distribution[1]);
        distribution += 2;
      }
      t = StoredTensor::of(t.spec.shape, values);
    }
    EXPECT_TRUE(distribution == draws.end() && statistic == statistics.end());
    return import_weights(std::move(theirs), GetParam().framework, a, false).tensors;
  }
  void feed(Session& s, const NetworkGraph& g) {
    s.upload(g.pixels, draw_pixels(at("labels").spec.shape[0], a.input_size).data());
    s.upload(g.labels, at("labels").bytes.data());
  }
  double error(const std::vector<float>& got, const std::string& name) {
    return relative_l2(got, at(name).floats());
  }
  double inference_error(const NetworkGraph& g, Weights& w) {
    Session s(*device, g.graph, w, {.keep = {g.logits}});
    feed(s, g);
    s.forward();
    return error(s.download(g.logits), "logits_eval");
  }

  Errors training_step(const NetworkGraph& g, const TensorFile& weights, DType dtype = DType::f32) {
    Weights w(*device, table, dtype == DType::bf16, true);
    load_weights(weights, table, w);
    Session s(*device, g.graph, w, {.training = true, .loss = g.loss, .keep = {g.loss, g.logits}});
    feed(s, g);
    s.set_step(0);
    s.forward();
    s.backward();
    TensorFile after;  // gradients, and the new running statistics
    for (const Parameter& p : table)
      after.tensors[p.name] =
          StoredTensor::of(p.shape, p.trainable ? to_host(*device, w.gradient(p)) : w.download(p));
    Errors e = compare(export_weights(after, a, GetParam().framework));
    e.logits = error(s.download(g.logits), "logits_train");
    e.loss = error(s.download(g.loss), "loss");
    return e;
  }
  Errors compare(const TensorFile& after) {
    const auto norms = at("norms").floats(), projections = at("projections").floats();
    double all = 0;
    for (size_t i = 0; i < names.size(); ++i)
      if (!is_statistic(names[i])) all = std::hypot(all, norms[i]);
    Errors e;
    std::vector<double> gradients;
    for (size_t i = 0; i < names.size(); ++i) {
      const auto got = after.at(names[i]).floats();
      if (!is_statistic(names[i]) && norms[i] < 1e-9 * all) {
        e.zero = std::max(e.zero, l2(got) / all);
        ++e.zeros;
        continue;
      }
      const std::vector<float> want(projections.begin() + i * kProjections,
                                    projections.begin() + (i + 1) * kProjections);
      const double error = distance(project(names[i], got), want) / std::sqrt(kProjections) / norms[i];
      if (is_statistic(names[i])) {
        e.statistics = std::max(e.statistics, error);
        continue;
      }
      gradients.push_back(error);
      if (error > e.gradient) {
        e.gradient = error;
        e.worst = names[i];
      }
    }
    std::sort(gradients.begin(), gradients.end());
    e.median = gradients[gradients.size() / 2];
    return e;
  }
  static bool is_statistic(const std::string& name) {
    return name.find("running_") != std::string::npos || name.find("moving_") != std::string::npos;
  }
  // Kept in the XML report of --gtest_output.
  static void record(const std::string& what, double error) {
    char text[32];
    std::snprintf(text, sizeof text, "%.2g", error);
    RecordProperty(what, text);
  }

  TensorFile golden;
  std::vector<std::string> names;
  Architecture a;
  std::unique_ptr<Device> device = open_device("cpu");
  ParameterTable table;
};

TEST_P(FrameworkGolden, Inference) {
  const TensorFile weights = draw_weights();
  const NetworkGraph g = build(false);
  Weights w(*device, table, false, false);
  load_weights(weights, table, w);
  const double plain = inference_error(g, w);
  record("unfolded", plain);
  EXPECT_LT(plain, 1e-5);
  for (DType dtype : {DType::f32, DType::bf16}) {
    FoldedNetwork folded(build(false, dtype));
    Weights fw(*device, folded.table, dtype == DType::bf16, false);
    folded.refresh(table, w, fw);
    const double error = inference_error(folded.net, fw);
    record(dtype == DType::bf16 ? "folded_bf16" : "folded", error);
    EXPECT_LT(error, dtype == DType::bf16 ? 2e-2 : 1e-5);
  }
}

TEST_P(FrameworkGolden, TrainingStep) {
  const TensorFile weights = draw_weights();
  const NetworkGraph plain = build(true);
  for (bool fuse : {false, true}) {
    SCOPED_TRACE(fuse ? "fused" : "unfused");
    const Errors e = training_step(fuse ? fuse_for_training(plain) : plain, weights);
    const std::string of = fuse ? "fused_" : "unfused_";
    record(of + "logits", e.logits);
    record(of + "loss", e.loss);
    record(of + "gradient", e.gradient);
    record(of + "zero", e.zero);
    record(of + "statistics", e.statistics);
    EXPECT_LT(e.logits, 1e-5);
    EXPECT_LT(e.loss, 1e-5);
    EXPECT_LT(e.gradient, 1e-4) << e.worst;
    EXPECT_LT(e.statistics, 1e-5);
    // In stages without zero padding before the next batch norm the shifts of a whole residual sum vanish.
    EXPECT_EQ(e.zeros, 31);
    EXPECT_LT(e.zero, 1e-7);
  }
}

// Rounding to bf16 is 2e-3 in every activation, and in networks this deep nobody's gradients are within 2e-2
// of float64: the framework's own mixed precision is the yardstick.
TEST_P(FrameworkGolden, TrainingStepInBf16) {
  const Errors e = training_step(fuse_for_training(build(true, DType::bf16)), draw_weights(), DType::bf16);
  record("logits", e.logits);
  record("median_gradient", e.median);
  record("gradient", e.gradient);
  const auto theirs = at("mixed").floats();  // logits in inference and training, median and worst gradient
  EXPECT_LT(e.logits, 2e-2);
  EXPECT_LT(e.median, 1.25 * theirs[2]);
}

// The worst of some 450 gradients at one size is itself noise: with Keras at 161 px it is off by 0.25 in the
// code for any x86 and by 0.32 in that for AVX2. The medians of both are 0.13, and Keras's own worst is 0.24.
// Over both sizes it holds still, and is judged there.
using FrameworkGoldenOfBothSizes = FrameworkGolden;

TEST_P(FrameworkGoldenOfBothSizes, WorstGradientInBf16) {
  double ratio = 1;
  std::string worst;
  for (const int size : {224, 161}) {
    a.input_size = size;
    const Errors e = training_step(fuse_for_training(build(true, DType::bf16)), draw_weights(), DType::bf16);
    ratio *= e.gradient / at("mixed").floats()[3];
    worst += e.worst + " ";
  }
  ratio = std::sqrt(ratio);
  record("ratio", ratio);
  EXPECT_LT(ratio, 1.25) << worst;
}

// One weight of 20,755,308 with the wrong sign, and the comparison is red in every part.
using FrameworkGoldenSeesErrors = FrameworkGolden;

TEST_P(FrameworkGoldenSeesErrors, OneWrongWeight) {
  TensorFile weights = draw_weights();
  StoredTensor& kernel = weights.tensors.at("block3a_expand_conv/kernel");
  auto values = kernel.floats();
  values[values.size() / 2] *= -1;
  kernel = StoredTensor::of(kernel.spec.shape, values);
  const Errors e = training_step(fuse_for_training(build(true)), weights);
  record("logits", e.logits);
  record("loss", e.loss);
  record("gradient", e.gradient);
  record("statistics", e.statistics);
  EXPECT_GT(e.logits, 1e-5);
  EXPECT_GT(e.loss, 1e-5);
  EXPECT_GT(e.gradient, 1e-4);
  EXPECT_GT(e.statistics, 1e-5);
}

TEST(FrameworkGoldenProjections, EstimateTheDistance) {
  Bits bits("values");
  for (int count : {1, 10, 1000, 100000}) {
    std::vector<float> a(count), b(count);
    for (int i = 0; i < count; ++i) b[i] = (a[i] = bits.uniform(1, 0.5)) + bits.uniform(0, 1e-2);
    const double estimate = distance(project("values", a), project("values", b)) / std::sqrt(kProjections);
    EXPECT_NEAR(estimate / distance(a, b), 1, count == 1 ? 1e-6 : 0.3) << count;
  }
}

INSTANTIATE_TEST_SUITE_P(Keras, FrameworkGoldenSeesErrors,
                         testing::Values(Case{"keras", Framework::keras, "effv2s_cbam.yaml", 161}));
INSTANTIATE_TEST_SUITE_P(Keras, FrameworkGolden,
                         testing::Values(Case{"keras", Framework::keras, "effv2s_cbam.yaml", 224},
                                         Case{"keras", Framework::keras, "effv2s_cbam.yaml", 161}));
INSTANTIATE_TEST_SUITE_P(Torchvision, FrameworkGolden,
                         testing::Values(Case{"torchvision", Framework::torchvision, "effv2s.yaml", 224},
                                         Case{"torchvision", Framework::torchvision, "effv2s.yaml", 161}));
INSTANTIATE_TEST_SUITE_P(Timm, FrameworkGolden,
                         testing::Values(Case{"timm", Framework::timm, "effv2s.yaml", 224},
                                         Case{"timm", Framework::timm, "effv2s.yaml", 161}));

INSTANTIATE_TEST_SUITE_P(Keras, FrameworkGoldenOfBothSizes,
                         testing::Values(Case{"keras", Framework::keras, "effv2s_cbam.yaml", 224}));
INSTANTIATE_TEST_SUITE_P(Torchvision, FrameworkGoldenOfBothSizes,
                         testing::Values(Case{"torchvision", Framework::torchvision, "effv2s.yaml", 224}));
INSTANTIATE_TEST_SUITE_P(Timm, FrameworkGoldenOfBothSizes,
                         testing::Values(Case{"timm", Framework::timm, "effv2s.yaml", 224}));

}  // namespace
}  // namespace gm
