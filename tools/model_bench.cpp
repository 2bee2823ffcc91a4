#include "tools/model_bench.h"

#include <algorithm>
#include <map>

#include "engine/optimizer.h"
#include "engine/repeated_work.h"
#include "engine/session.h"
#include "kernels/common/clock.h"
#include "kernels/common/philox.h"
#include "layers/network.h"

namespace gm {

namespace {

std::vector<float> noise(int64_t n) {
  PhiloxStream rng(1, RngUse::sample);
  std::vector<float> v(n);
  for (float& x : v) x = static_cast<float>(rng.uniform(0, 255));
  return v;
}

// One more run, step by step with a wait after each: where the time goes.
std::vector<std::pair<std::string, double>> profile(Device& device, Session& session) {
  std::map<std::string, double> seconds;
  for (size_t i = 0; i < session.plan().steps.size(); ++i) {
    const Step& s = session.plan().steps[i];
    const double start = seconds_now();
    session.run(i, i + 1);
    device.synchronize();
    seconds[std::string(session.graph().nodes()[s.node].op->name) +
            (s.again                   ? " again"
             : s.pass == Pass::forward ? " forward"
                                       : " backward")] += seconds_now() - start;
  }
  std::vector<std::pair<std::string, double>> list(seconds.begin(), seconds.end());
  std::sort(list.begin(), list.end(), [](const auto& a, const auto& b) { return a.second > b.second; });
  return list;
}

}  // namespace

ModelTiming time_model(Device& device, const Architecture& a, const ModelBenchOptions& o) {
  ParameterTable table;
  const DType dtype = o.bf16() ? DType::bf16 : DType::f32;
  const NetworkGraph plain =
      build_network(a, table, {.batch = o.batch, .training = o.training, .dtype = dtype, .loss = o.training});
  Weights weights(device, table, o.bf16(), o.training);
  weights.initialize(table, 1);
  const auto pixels = noise(plain.graph.spec(plain.pixels).shape.numel());
  ModelTiming t;
  t.batch = o.batch;
  if (!o.training) {
    const FoldedNetwork folded(plain, o.fusions, device.backend());
    Weights folded_weights(device, folded.table, o.bf16(), false);
    folded.refresh(table, weights, folded_weights);
    Session session(device, folded.net.graph, folded_weights, {.keep = {folded.net.logits}});
    session.upload(folded.net.pixels, pixels.data());
    RepeatedWork forward(device, [&] { session.forward(); });
    t.step = time_repeated(
        device, [&] { forward.run(); }, o.seconds);
    t.bytes = folded_weights.bytes() + session.bytes() + device.overhead_bytes();
    t.by_op = profile(device, session);
    return t;
  }
  const NetworkGraph net = fuse_for_training(plain, o.fusions, device.backend());
  Session session(device, net.graph, weights,
                  {.training = true, .loss = net.loss, .keep = {net.loss}, .recompute = o.recompute});
  Optimizer optimizer(device, {}, table, weights);
  session.upload(net.pixels, pixels.data());
  std::vector<int32_t> labels(o.batch);
  for (int64_t i = 0; i < o.batch; ++i) labels[i] = static_cast<int32_t>(i % a.classes);
  session.upload(net.labels, labels.data());
  const Buffer numbers(device, sizeof(Optimizer::Hyper));
  const Optimizer::Hyper values = optimizer.hyper(1e-4, 0);
  device.upload(numbers.data(), values.data(), sizeof values);
  RepeatedWork step(device, [&] {
    session.forward();
    session.backward();
    optimizer.apply(numbers.view(0, {Shape{Optimizer::kHyper}, DType::f32}));
  });
  t.step = time_repeated(
      device, [&] { step.run(); }, o.seconds);
  t.bytes = weights.bytes() + optimizer.bytes() + session.bytes() + device.overhead_bytes();
  t.by_op = profile(device, session);
  return t;
}

}  // namespace gm
