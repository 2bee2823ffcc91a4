#include "layers/controller.h"

#include <algorithm>
#include <cmath>
#include <iterator>

namespace gm {

namespace {

constexpr double kInitialRange = 0.1;
// Of the variance of U(-range, range).
constexpr Initializer kInitial{Initializer::uniform, 1, kInitialRange* kInitialRange / 3};

struct Unit {
  ValueId symbol, hidden, cell;  // inputs of a step
  ValueId next_hidden, next_cell;
};

// The layers of one step; `at` numbers it within an unrolled graph.
Unit add_step(Graph& g, ValueId symbol, ValueId hidden, ValueId cell, int64_t units, int64_t symbols,
              int at) {
  const std::string n = std::to_string(at);
  auto weights = [&](const char* name, int64_t out, int64_t in) {
    return g.parameter(name, Shape{out, in}, kInitial);
  };
  const ValueId x =
      g.add1("linear", {}, {symbol, weights("embedding/kernel", units, symbols), kAbsent}, "embed" + n);
  const ValueId from_x =
      g.add1("linear", {}, {x, weights("lstm/kernel", 4 * units, units), kAbsent}, "input" + n);
  const ValueId from_h = g.add1(
      "linear", {}, {hidden, weights("lstm/recurrent_kernel", 4 * units, units), kAbsent}, "recurrent" + n);
  const ValueId gates = g.add1("add", {}, {from_x, from_h}, "gates" + n);
  const auto out = g.add("lstm_cell", {}, {gates, cell}, "lstm" + n);
  return {symbol, hidden, cell, out[0], out[1]};
}

ValueId add_head(Graph& g, ValueId hidden, const Decision& d, int64_t units, int at) {
  const ValueId w =
      g.parameter("head" + std::to_string(d.kind) + "/kernel", Shape{d.options, units}, kInitial);
  return g.add1("linear", {}, {hidden, w, kAbsent}, "logits" + std::to_string(at));
}

// Probabilities of the options, shaped as policy_loss shapes them.
std::vector<double> probabilities(const std::vector<float>& logits, const ControllerConfig& c) {
  std::vector<double> p(logits.begin(), logits.end());
  double largest = -1e300, sum = 0;
  for (double& v : p) {
    v /= c.temperature;
    if (c.tanh_constant > 0) v = c.tanh_constant * std::tanh(v);
    largest = std::max(largest, v);
  }
  for (double& v : p) sum += v = std::exp(v - largest);
  for (double& v : p) v /= sum;
  return p;
}

}  // namespace

struct Controller::Graphs {
  Unit one;                               // of the sampling graph
  std::vector<ValueId> heads;             // its logits by kind; kAbsent where a kind does not occur
  std::vector<ValueId> symbols, actions;  // inputs of the learning graph, by decision
  ValueId advantage = kAbsent, hidden = kAbsent, cell = kAbsent, loss = kAbsent;
  std::unique_ptr<Weights> weights;
  std::unique_ptr<Session> sampling, learning;
  std::unique_ptr<Optimizer> optimizer;

  /// One step. options: of each kind; width: of a symbol.
  void add_sampling(Graph& graph, const std::vector<int>& options, int64_t units, int64_t width) {
    const ValueId symbol = graph.input("symbol", {Shape{1, width}, DType::f32}),
                  h = graph.input("hidden", {Shape{1, units}, DType::f32}),
                  c = graph.input("cell", {Shape{1, units}, DType::f32});
    one = add_step(graph, symbol, h, c, units, width, 0);
    for (int kind = 0; kind < static_cast<int>(options.size()); ++kind)
      heads.push_back(options[kind] ? add_head(graph, one.next_hidden, {kind, options[kind]}, units, kind)
                                    : kAbsent);
  }

  /// The whole sequence and its loss.
  void add_learning(Graph& graph, const std::vector<Decision>& decisions, const ControllerConfig& config,
                    int64_t batch, int64_t width) {
    const TensorSpec state{Shape{batch, config.hidden}, DType::f32};
    advantage = graph.input("advantage", {Shape{batch}, DType::f32});
    hidden = graph.input("hidden", state);
    cell = graph.input("cell", state);
    const Attrs attrs{{"temperature", config.temperature},
                      {"constant", config.tanh_constant},
                      {"entropy_weight", config.entropy_weight / static_cast<double>(batch)}};
    ValueId h = hidden, c = cell;
    for (int i = 0; i < static_cast<int>(decisions.size()); ++i) {
      const std::string n = std::to_string(i);
      symbols.push_back(graph.input("symbol" + n, {Shape{batch, width}, DType::f32}));
      actions.push_back(graph.input("action" + n, {Shape{batch}, DType::i32}));
      const Unit s = add_step(graph, symbols.back(), h, c, config.hidden, width, i);
      h = s.next_hidden;
      c = s.next_cell;
      const ValueId logits = add_head(graph, h, decisions[i], config.hidden, i);
      const ValueId part = graph.add1("policy_loss", attrs, {logits, actions.back(), advantage}, "loss" + n);
      loss = loss == kAbsent ? part : graph.add1("add", {}, {loss, part}, "sum" + n);
    }
  }
};

Controller::~Controller() = default;

Controller::Controller(Device& device, std::vector<Decision> decisions, const ControllerConfig& config,
                       int64_t batch, uint64_t seed)
    : decisions_(std::move(decisions)), config_(config), batch_(batch) {
  if (decisions_.empty()) fail("search: the space leaves nothing to choose");
  int kinds = 0;
  for (const Decision& d : decisions_) kinds = std::max(kinds, d.kind + 1);
  std::vector<int> options(kinds, 0);
  for (const Decision& d : decisions_) options[d.kind] = d.options;
  for (int n : options) {
    first_of_.push_back(symbols_);
    symbols_ += n;
  }

  graphs_ = std::make_unique<Graphs>();
  Graphs& g = *graphs_;
  Graph sampling(table_), learning(table_);
  g.add_sampling(sampling, options, config.hidden, symbols_);
  g.add_learning(learning, decisions_, config, batch, symbols_);
  std::vector<ValueId> keep{g.one.next_hidden, g.one.next_cell};
  std::copy_if(g.heads.begin(), g.heads.end(), std::back_inserter(keep),
               [](ValueId head) { return head != kAbsent; });
  g.weights = std::make_unique<Weights>(device, table_, false, true);
  g.weights->initialize(table_, seed);
  g.sampling = std::make_unique<Session>(device, sampling, *g.weights, PlanOptions{.keep = keep});
  g.learning = std::make_unique<Session>(device, learning, *g.weights,
                                         PlanOptions{.training = true, .loss = g.loss, .keep = {g.loss}});
  const OptimizerConfig adam{.kind = OptimizerConfig::adam, .lr = config.lr};
  g.optimizer = std::make_unique<Optimizer>(device, adam, table_, *g.weights);
  const std::vector<float> zeros(static_cast<size_t>(batch * config.hidden), 0.f);
  g.learning->upload(g.hidden, zeros.data());
  g.learning->upload(g.cell, zeros.data());
}

std::vector<int> Controller::sample(PhiloxStream& draws) {
  Graphs& g = *graphs_;
  std::vector<float> hidden(config_.hidden, 0.f), cell = hidden, symbol(symbols_, 0.f);
  std::vector<int> sequence;
  int last = 0;
  for (const Decision& d : decisions_) {
    symbol[last] = 1;
    g.sampling->upload(g.one.symbol, symbol.data());
    symbol[last] = 0;
    g.sampling->upload(g.one.hidden, hidden.data());
    g.sampling->upload(g.one.cell, cell.data());
    g.sampling->forward();
    hidden = g.sampling->download(g.one.next_hidden);
    cell = g.sampling->download(g.one.next_cell);
    const std::vector<double> p = probabilities(g.sampling->download(g.heads[d.kind]), config_);
    double left = draws.uniform(), entropy = 0;
    int chosen = 0;
    while (chosen + 1 < d.options && left >= p[chosen]) left -= p[chosen++];
    for (double v : p) entropy -= v > 0 ? v * std::log(v) : 0;
    entropy_sum_ += d.options > 1 ? entropy / std::log(static_cast<double>(d.options)) : 0;
    ++entropy_samples_;
    sequence.push_back(chosen);
    last = first_of_[d.kind] + chosen;
  }
  return sequence;
}

void Controller::learn(const std::vector<std::vector<int>>& sequences, const std::vector<double>& rewards,
                       bool limited) {
  GM_CHECK(static_cast<int64_t>(sequences.size()) == batch_ && rewards.size() == sequences.size(),
           "controller: wrong number of sequences");
  Graphs& g = *graphs_;
  double mean = 0;
  for (double r : rewards) mean += r / static_cast<double>(batch_);
  if (step_ == 0) baseline_ = mean;
  const double compared = limited && batch_ > 1 ? mean : baseline_;
  std::vector<float> advantage;
  for (double r : rewards)
    advantage.push_back(static_cast<float>((r - compared) / static_cast<double>(batch_)));
  g.learning->upload(g.advantage, advantage.data());
  std::vector<int> last(sequences.size(), 0);
  for (size_t i = 0; i < decisions_.size(); ++i) {
    std::vector<float> symbols(sequences.size() * symbols_, 0.f);
    std::vector<int32_t> actions;
    for (size_t n = 0; n < sequences.size(); ++n) {
      symbols[n * symbols_ + last[n]] = 1;
      actions.push_back(sequences[n].at(i));
      last[n] = first_of_[decisions_[i].kind] + sequences[n][i];
    }
    g.learning->upload(g.symbols[i], symbols.data());
    g.learning->upload(g.actions[i], actions.data());
  }
  g.learning->forward();
  g.learning->backward();
  g.optimizer->update(config_.lr, step_++);
  baseline_ = config_.baseline_decay * baseline_ + (1 - config_.baseline_decay) * mean;
  entropy_ = entropy();
  entropy_sum_ = 0;
  entropy_samples_ = 0;
}

void Controller::save(TensorFile& file) const {
  for (const Parameter& p : table_)
    file.tensors["controller/" + p.name] = StoredTensor::of(p.shape, graphs_->weights->download(p));
  for (auto [name, buffer] : {std::pair{"controller/moment1", &graphs_->optimizer->moment1()},
                              {"controller/moment2", &graphs_->optimizer->moment2()}}) {
    const std::vector<float> values = buffer->download<float>();
    file.tensors[name] = StoredTensor::of(Shape{static_cast<int64_t>(values.size())}, values);
  }
  file.metadata["baseline"] = exact_text(baseline_);
  file.metadata["controller_step"] = std::to_string(step_);
}

void Controller::load(const TensorFile& file) {
  const auto values = [&](const std::string& name, int64_t elements) {
    const StoredTensor& t = file.at("controller/" + name);
    if (t.spec.shape.numel() != elements) fail(file.path + ": belongs to another search space");
    return t.floats();
  };
  // All checks come first: a wrong file changes nothing.
  const Metadata kept(file.path, file.metadata, "not the state of a search");
  const double baseline = kept.number("baseline");
  const int64_t step = kept.integer("controller_step");
  std::vector<std::vector<float>> parameters;
  for (const Parameter& p : table_) parameters.push_back(values(p.name, p.shape.numel()));
  const auto moment1 = values("moment1", table_.trainable_elements()),
             moment2 = values("moment2", table_.trainable_elements());

  for (int i = 0; i < table_.size(); ++i) graphs_->weights->upload(table_[i], parameters[i]);
  graphs_->optimizer->moment1().upload(moment1);
  graphs_->optimizer->moment2().upload(moment2);
  baseline_ = baseline;
  step_ = step;
}

}  // namespace gm
