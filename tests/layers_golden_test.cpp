// The CPU engine against outputs and gradients that PyTorch computed in float64
// (golden/make_torch_golden.py).
#include <gtest/gtest.h>

#include <cmath>

#include "engine/safetensors.h"
#include "engine/session.h"
#include "layers/network.h"
#include "layers/rewrites.h"
#include "tests/vectors.h"

namespace gm {
namespace {

using test::distance;
using test::l2;

class Golden : public testing::TestWithParam<const char*> {
 protected:
  Golden()
      : path(std::string(GM_SOURCE_DIR) + "/tests/golden/" + GetParam()),
        file(read_safetensors(path + ".safetensors")),
        a(read_architecture(load_config(path + ".yaml"), path + ".yaml")) {}

  NetworkGraph build(bool training, DType dtype = DType::f32) {
    return build_network(a, table,
                         {.batch = file.at("labels").spec.shape[0], .training = training, .dtype = dtype});
  }
  void load(Weights& w) {
    for (const Parameter& p : table) {
      const StoredTensor& t = file.at("weights/" + p.name);
      ASSERT_EQ(t.spec.shape, p.shape) << p.name;
      w.upload(p, t.floats());
    }
    w.refresh_bf16();
  }
  void feed(Session& s, const NetworkGraph& g) {
    const StoredTensor& pixels = file.at("pixels");
    const std::vector<float> wide(
        reinterpret_cast<const uint8_t*>(pixels.bytes.data()),
        reinterpret_cast<const uint8_t*>(pixels.bytes.data() + pixels.bytes.size()));
    s.upload(g.pixels, wide.data());
    s.upload(g.labels, file.at("labels").bytes.data());
  }
  std::vector<float> logits(const NetworkGraph& g, Weights& w) {
    Session s(*device, g.graph, w, {.keep = {g.logits}});
    feed(s, g);
    s.forward();
    return s.download(g.logits);
  }
  double error(const std::vector<float>& got, const std::string& name) {
    return test::relative_l2(got, file.at(name).floats());
  }

  std::string path;
  TensorFile file;
  Architecture a;
  std::unique_ptr<Device> device = open_device("cpu");
  ParameterTable table;
};

TEST_P(Golden, Inference) {
  const NetworkGraph g = build(false);
  Weights w(*device, table, false, false);
  load(w);
  EXPECT_LT(error(logits(g, w), "logits_eval"), 1e-5);
  for (DType dtype : {DType::f32, DType::bf16}) {
    FoldedNetwork folded(build(false, dtype));
    Weights fw(*device, folded.table, dtype == DType::bf16, false);
    folded.refresh(table, w, fw);
    EXPECT_LT(error(logits(folded.net, fw), "logits_eval"), dtype == DType::bf16 ? 2e-2 : 1e-5);
  }
}

TEST_P(Golden, TrainingStep) {
  const NetworkGraph plain = build(true);
  Weights w(*device, table, false, true);
  double all = 0;  // scale of gradients that are zero up to rounding: shifts that the next batch norm removes
  for (const Parameter& p : table)
    if (p.trainable) all = std::hypot(all, l2(file.at("gradients/" + p.name).floats()));
  for (bool fuse : {false, true}) {
    SCOPED_TRACE(fuse ? "fused" : "unfused");
    const NetworkGraph g = fuse ? fuse_for_training(plain) : plain;
    load(w);
    Session s(*device, g.graph, w, {.training = true, .loss = g.loss, .keep = {g.loss, g.logits}});
    feed(s, g);
    s.set_step(0);
    s.forward();
    s.backward();
    EXPECT_LT(error(s.download(g.logits), "logits_train"), 1e-5);
    EXPECT_LT(error(s.download(g.loss), "loss_train"), 1e-5);
    for (const Parameter& p : table)
      if (p.trainable) {
        const auto want = file.at("gradients/" + p.name).floats();
        EXPECT_LT(distance(to_host(*device, w.gradient(p)), want), 1e-4 * l2(want) + 1e-7 * all) << p.name;
      } else {
        EXPECT_LT(error(w.download(p), "updated/" + p.name), 1e-5) << p.name;
      }
  }
}

INSTANTIATE_TEST_SUITE_P(Torch, Golden, testing::Values("cbam_keras", "cbam_authors"));

}  // namespace
}  // namespace gm
