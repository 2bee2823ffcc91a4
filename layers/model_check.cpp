#include "layers/model_check.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "engine/batch_source.h"
#include "engine/reference_run.h"
#include "engine/safetensors.h"
#include "engine/session.h"
#include "engine/weight_file.h"
#include "layers/check_maxima.h"

namespace gm {

namespace {

constexpr double kFloor = 5e-3;  // share of the norm of all that joins the norm of one

struct Tensor {
  Difference::Kind kind;
  std::string name;
  std::vector<float> values;
};
using Sink = std::function<void(Tensor)>;

DType dtype_of(const CheckSide& side) { return side.bf16 ? DType::bf16 : DType::f32; }

std::unique_ptr<Device> open(const CheckSide& side, const CheckProblem& p) {
  return open_device(side.device, {.threads = p.threads});
}

std::vector<ValueId> outputs(const Graph& g) {
  std::vector<ValueId> all;
  for (const Node& n : g.nodes()) all.insert(all.end(), n.out.begin(), n.out.end());
  return all;
}
// Layers by their node's name; a second output is "name:1".
void give_layers(const Graph& g, const Sink& sink, const std::function<std::vector<float>(ValueId)>& read) {
  for (const Node& n : g.nodes())
    for (size_t k = 0; k < n.out.size(); ++k)
      sink({Difference::layer, n.name + (k ? ":" + std::to_string(k) : ""), read(n.out[k])});
}

Weights make_weights(Device& device, const ParameterTable& table, const CheckSide& side,
                     const CheckProblem& p, bool training) {
  Weights w(device, table, side.bf16, training);
  if (p.weights)
    load_weights(*p.weights, table, w);
  else
    w.initialize(table, p.seed);
  return w;
}

void feed(Session& s, const NetworkGraph& g, const CheckProblem& p) {
  s.upload(g.pixels, p.pixels.data());
  if (g.labels != kAbsent) s.upload(g.labels, p.labels.data());
}
void feed(ReferenceRun& r, const NetworkGraph& g, const CheckProblem& p) {
  r.set(g.pixels, p.pixels);
  if (g.labels != kAbsent) r.set(g.labels, p.labels);
}

// A card's plan when one of the two is a card: both sides run the same nodes.
Backend plan_backend(const CheckSide& side, const CheckSide& other) {
  for (const CheckSide& s : {side, other}) {
    if (s.device.starts_with("cuda") || (s.device == "auto" && no_cuda_reason().empty()))
      return Backend::cuda;
    if (s.device == "simt") return Backend::simt;
  }
  return Backend::cpu;
}

// The network that one side trains, on its device.
struct TrainingSide {
  // backend: whose plan; of the device unless both sides are to run the same nodes.
  TrainingSide(const CheckSide& s, const CheckProblem& p, std::optional<Backend> backend = {})
      : side(s),
        problem(p),
        device(open(s, p)),
        graph(fuse_for_training(build_network(p.architecture, table,
                                              {.batch = p.batch,
                                               .training = true,
                                               .dtype = dtype_of(s),
                                               .label_smoothing = p.label_smoothing}),
                                p.fusions, backend.value_or(device->backend()))) {}
  Weights fresh_weights() const { return make_weights(*device, table, side, problem, true); }

  const CheckSide& side;
  const CheckProblem& problem;
  std::unique_ptr<Device> device;
  ParameterTable table;
  NetworkGraph graph;
};

// Gradients and running statistics, by their place in the table.
void give_parameters(const ParameterTable& table, const Sink& sink,
                     const std::function<std::vector<float>(int)>& gradient,
                     const std::function<std::vector<float>(int)>& value) {
  for (int i = 0; i < table.size(); ++i)
    table[i].trainable ? sink({Difference::gradient, table[i].name, gradient(i)})
                       : sink({Difference::statistics, table[i].name, value(i)});
}

void reference_step(const TrainingSide& t, const Sink& sink, MaximaExchange& maxima) {
  const NetworkGraph& g = t.graph;
  ReferenceRun run(g.graph, t.fresh_weights());
  const auto value = [&](ValueId id) { return run.value(id); };
  feed(run, g, t.problem);
  run.forward(t.problem.seed, 0);
  give_layers(g.graph, sink, value);
  maxima.take_values(value);
  maxima.exchange(
      *t.device, [&](const MaximaPlace& m) { return run.saved(m.node, m.saved); }, t.side.str());
  run.backward(g.loss);
  sink({Difference::logits, "logits", run.value(g.logits)});
  sink({Difference::loss, "loss", run.value(g.loss)});
  give_parameters(
      t.table, sink, [&](int i) { return run.gradient(i); }, [&](int i) { return run.parameter(i); });
}

void planned_step(const TrainingSide& t, const Sink& sink, MaximaExchange& maxima) {
  const NetworkGraph& g = t.graph;
  {
    Weights w = t.fresh_weights();
    PlanOptions keep_all{.training = true, .loss = g.loss, .keep = outputs(g.graph)};
    Session s(*t.device, g.graph, w, keep_all, t.problem.seed);
    const auto value = [&](ValueId id) { return s.download(id); };
    feed(s, g, t.problem);
    s.forward();
    give_layers(g.graph, sink, value);
    maxima.take_values(value);
  }
  Weights w = t.fresh_weights();
  PlanOptions planned = training_options(g, false);
  planned.keep.push_back(g.logits);
  Session s(*t.device, g.graph, w, planned, t.problem.seed);
  feed(s, g, t.problem);
  s.forward();
  maxima.exchange(
      *t.device, [&](const MaximaPlace& m) { return s.saved(m.node, m.saved); }, t.side.str());
  s.backward();
  sink({Difference::logits, "logits", s.download(g.logits)});
  sink({Difference::loss, "loss", s.download(g.loss)});
  give_parameters(
      t.table, sink, [&](int i) { return to_host(*t.device, w.gradient(t.table[i])); },
      [&](int i) { return w.download(t.table[i]); });
}

void inference(const CheckSide& side, const CheckProblem& p, Backend backend, const Sink& sink) {
  ParameterTable table;
  const FoldedNetwork folded(
      build_network(p.architecture, table, {.batch = p.batch, .dtype = dtype_of(side), .loss = false}),
      p.fusions, backend);
  auto device = open(side, p);
  const Weights original = make_weights(*device, table, side, p, false);
  Weights w(*device, folded.table, side.bf16, false);
  folded.refresh(table, original, w);
  if (device->backend() == Backend::ref) {
    ReferenceRun run(folded.net.graph, w);
    feed(run, folded.net, p);
    run.forward(p.seed, 0);
    give_layers(folded.net.graph, sink, [&](ValueId id) { return run.value(id); });
    return sink({Difference::logits, "logits", run.value(folded.net.logits)});
  }
  {
    Session s(*device, folded.net.graph, w, {.keep = outputs(folded.net.graph)});
    feed(s, folded.net, p);
    s.forward();
    give_layers(folded.net.graph, sink, [&](ValueId id) { return s.download(id); });
  }
  Session s(*device, folded.net.graph, w, {.keep = {folded.net.logits}});
  feed(s, folded.net, p);
  s.forward();
  sink({Difference::logits, "logits", s.download(folded.net.logits)});
}

// Holds one side's tensors until the other side gives its own.
class Comparison {
 public:
  void keep(Tensor t) {
    for (float v : t.values) square_[t.kind] += double(v) * v;
    kept_.push_back(std::move(t));
  }
  void compare(const Tensor& got) {
    const Tensor& want = kept_.at(next_++);
    // What a card fuses depends on the precision.
    if (got.name != want.name || got.values.size() != want.values.size())
      fail("the two sides fuse other layers at '" + got.name + "': give both the same precision");
    Difference d{got.kind, got.name};
    double square = 0, norm = 0;
    for (size_t i = 0; i < want.values.size(); ++i) {
      const double off = std::abs(double(got.values[i]) - want.values[i]);
      d.max = std::isnan(off) ? off : std::max(d.max, off);
      if (std::isnan(off)) break;
      d.mean += off / double(want.values.size());
      square += off * off;
      norm += double(want.values[i]) * want.values[i];
    }
    const bool shared = got.kind == Difference::gradient || got.kind == Difference::statistics;
    const double scale = std::sqrt(norm) + (shared ? kFloor * std::sqrt(square_[got.kind]) : 0);
    d.relative = std::isnan(d.max) ? d.max : square == 0 ? 0 : std::sqrt(square) / scale;
    differences.push_back(d);
  }
  std::vector<Difference> differences;

 private:
  std::vector<Tensor> kept_;
  size_t next_ = 0;
  double square_[Difference::kKinds] = {};
};

template <class Run>
std::vector<Difference> both(const CheckSide& side, const CheckSide& other, const CheckProblem& p, Run run) {
  Comparison c;
  run(other, p, [&](Tensor t) { c.keep(std::move(t)); });
  run(side, p, [&](Tensor t) { c.compare(t); });
  return c.differences;
}

// One side of a training run.
struct Trainee : TrainingSide {
  Trainee(const CheckSide& s, const CheckProblem& p, const OptimizerConfig& config)
      : TrainingSide(s, p),
        weights(fresh_weights()),
        session(*device, graph.graph, weights, training_options(graph, false), p.seed),
        optimizer(*device, config, table, weights) {}

  double step(const HostBatch& batch, int64_t number) {
    session.upload(graph.pixels, batch.pixels.data());
    session.upload(graph.labels, batch.labels.data());
    session.set_step(static_cast<uint64_t>(number));
    session.forward();
    session.backward();
    optimizer.update(optimizer.config().lr, number);
    return session.download(graph.loss)[0];
  }

  Weights weights;
  Session session;
  Optimizer optimizer;
};

}  // namespace

std::string CheckSide::str() const { return device + (device == "ref" ? "" : bf16 ? " bf16" : " f32"); }

const char* kind_name(Difference::Kind kind) {
  const char* names[] = {"layer", "logits", "loss", "gradient", "statistics", "maximum"};
  return names[kind];
}

std::vector<Difference> check_training_step(const CheckSide& side, const CheckSide& other,
                                            const CheckProblem& problem) {
  const Backend backend = plan_backend(side, other);
  std::vector<Maxima> theirs, ours;  // of `other`, which runs first, and of `side`
  std::vector<Difference> maxima;
  std::vector<Difference> all =
      both(side, other, problem, [&](const CheckSide& s, const CheckProblem& p, const Sink& sink) {
        const bool first = &s == &other;
        const TrainingSide t(s, p, backend);
        MaximaExchange exchange(t.graph.graph, first ? theirs : ours, first ? nullptr : &theirs, maxima);
        t.device->backend() == Backend::ref ? reference_step(t, sink, exchange)
                                            : planned_step(t, sink, exchange);
      });
  all.insert(all.end(), maxima.begin(), maxima.end());
  return all;
}
std::vector<Difference> check_inference(const CheckSide& side, const CheckSide& other,
                                        const CheckProblem& problem) {
  const Backend backend = plan_backend(side, other);
  return both(side, other, problem, [&](const CheckSide& s, const CheckProblem& p, const Sink& sink) {
    inference(s, p, backend, sink);
  });
}

double StepLosses::relative() const { return std::abs(side - other) / std::abs(other); }

std::vector<StepLosses> check_training(const CheckSide& side, const CheckSide& other,
                                       const CheckProblem& problem, const OptimizerConfig& optimizer,
                                       BatchSource& source, int64_t steps,
                                       const std::function<void(const StepLosses&)>& on_step) {
  Trainee a(side, problem, optimizer), b(other, problem, optimizer);
  std::vector<StepLosses> losses;
  HostBatch batch;
  for (int64_t epoch = 0; static_cast<int64_t>(losses.size()) < steps; ++epoch) {
    source.start_epoch(epoch, 0);
    while (static_cast<int64_t>(losses.size()) < steps && source.next(batch)) {
      const int64_t n = static_cast<int64_t>(losses.size());
      losses.push_back({n, a.step(batch, n), b.step(batch, n)});
      if (on_step) on_step(losses.back());
    }
  }
  return losses;
}

}  // namespace gm
