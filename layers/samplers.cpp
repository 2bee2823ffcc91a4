#include "layers/samplers.h"

#include <algorithm>
#include <numeric>

namespace gm {

ChoiceVector uniform_choices(const SearchSpace& space, PhiloxStream& draws) {
  return space.first_allowed([&] {
    ChoiceVector c;
    for (int i = 0; i < space.length(); ++i)
      c.push_back(static_cast<int>(draws.below(static_cast<uint32_t>(space.options_at(i)))));
    return c;
  });
}

namespace {

class RandomSampler : public Sampler {
 public:
  RandomSampler(const SearchSpace& space, Device&, const SamplerConfig&) : space_(space) {}
  ChoiceVector to_train(PhiloxStream& draws) override { return uniform_choices(space_, draws); }
  ChoiceVector to_score(PhiloxStream& draws, int64_t, int64_t) override {
    return uniform_choices(space_, draws);
  }
  void learn(int64_t, const std::vector<ScoredChild>&) override {}

 private:
  SearchSpace space_;
};

class EnasSampler : public Sampler {
 public:
  EnasSampler(const SearchSpace& space, Device& device, const SamplerConfig& c)
      : space_(space),
        positions_(decided(space)),
        controller_(device, decisions(space, positions_), c.controller, c.children, c.seed) {}

  ChoiceVector to_train(PhiloxStream& draws) override {
    return space_.first_allowed([&] {
      ChoiceVector choices(static_cast<size_t>(space_.length()), 0);
      const std::vector<int> sequence = controller_.sample(draws);
      for (size_t i = 0; i < positions_.size(); ++i) choices[positions_[i]] = sequence[i];
      return choices;
    });
  }
  ChoiceVector to_score(PhiloxStream& draws, int64_t, int64_t) override { return to_train(draws); }
  void learn(int64_t, const std::vector<ScoredChild>& children) override {
    std::vector<std::vector<int>> sequences;
    std::vector<double> rewards;
    for (const ScoredChild& child : children) {
      std::vector<int> sequence;
      for (int at : positions_) sequence.push_back(child.choices.at(at));
      sequences.push_back(sequence);
      rewards.push_back(child.reward);
    }
    controller_.learn(sequences, rewards, space_.limited());
  }
  std::string status() const override {
    char text[64];
    std::snprintf(text, sizeof text, "baseline %.4f  entropy %.2f", controller_.baseline(),
                  controller_.entropy());
    return text;
  }
  void save(TensorFile& file) const override { controller_.save(file); }
  void load(const TensorFile& file) override { controller_.load(file); }

 private:
  // Positions of a choice vector that leave a choice.
  static std::vector<int> decided(const SearchSpace& space) {
    std::vector<int> positions;
    for (int i = 0; i < space.length(); ++i)
      if (space.options_at(i) > 1) positions.push_back(i);
    return positions;
  }
  static std::vector<Decision> decisions(const SearchSpace& space, const std::vector<int>& positions) {
    std::vector<Decision> list;
    for (int i : positions) list.push_back({static_cast<int>(space.kind(i)), space.options_at(i)});
    return list;
  }
  SearchSpace space_;
  std::vector<int> positions_;
  Controller controller_;
};

class HalvingSampler : public Sampler {
 public:
  HalvingSampler(const SearchSpace& space, Device&, const SamplerConfig& c) : children_(c.children) {
    // As many rounds as leave one network at the end: children * (iterations / rounds) >= 2^(rounds - 1).
    int64_t rounds = 1;
    while (rounds < c.iterations && rounds < 40 && (children_ * (c.iterations / (rounds + 1))) >> rounds >= 1)
      ++rounds;
    rounds_ = rounds;
    length_ = c.iterations / rounds;
    PhiloxStream draws(c.seed, RngUse::sample, kStart);
    for (int64_t i = 0; i < children_ * length_; ++i) alive_.push_back(uniform_choices(space, draws));
    sums_.assign(alive_.size(), 0);
    counts_.assign(alive_.size(), 0);
  }
  ChoiceVector to_train(PhiloxStream& draws) override {
    return alive_[draws.below(static_cast<uint32_t>(alive_.size()))];
  }
  ChoiceVector to_score(PhiloxStream&, int64_t iteration, int64_t index) override {
    return alive_[turn(iteration, index)];
  }
  void learn(int64_t iteration, const std::vector<ScoredChild>& children) override {
    for (size_t i = 0; i < children.size(); ++i) {
      const size_t at = turn(iteration, static_cast<int64_t>(i));
      sums_[at] += children[i].reward;
      counts_[at] += 1;
    }
    if (iteration % length_ != length_ - 1 || iteration / length_ >= rounds_ - 1) return;
    std::vector<size_t> order(alive_.size());
    std::iota(order.begin(), order.end(), size_t{0});
    auto mean = [&](size_t i) { return counts_[i] > 0 ? sums_[i] / counts_[i] : -1e300; };
    std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return mean(a) > mean(b); });
    order.resize(std::max<size_t>(1, (order.size() + 1) / 2));
    std::vector<ChoiceVector> better;
    for (size_t i : order) better.push_back(alive_[i]);
    alive_ = better;
    sums_.assign(alive_.size(), 0);
    counts_.assign(alive_.size(), 0);
  }
  std::string status() const override { return std::to_string(alive_.size()) + " networks left"; }
  void save(TensorFile& file) const override {
    std::vector<float> choices;  // small whole numbers, exact
    for (const ChoiceVector& c : alive_) choices.insert(choices.end(), c.begin(), c.end());
    const int64_t n = static_cast<int64_t>(alive_.size());
    file.tensors["halving/choices"] =
        StoredTensor::of(Shape{n, static_cast<int64_t>(alive_[0].size())}, choices);
    std::string text;
    for (size_t i = 0; i < alive_.size(); ++i)
      text += exact_text(sums_[i]) + ' ' + exact_text(counts_[i]) + ' ';
    file.metadata["halving"] = text;
  }
  void load(const TensorFile& file) override {
    const StoredTensor& stored = file.at("halving/choices");
    const std::vector<float> choices = stored.floats();
    const Shape& shape = stored.spec.shape;
    const size_t length = alive_[0].size();
    if (shape.rank != 2 || shape[0] < 1 || shape[1] != static_cast<int64_t>(length))
      fail(file.path + ": belongs to another search space");
    const size_t n = static_cast<size_t>(shape[0]);
    const std::vector<double> scores =
        Metadata(file.path, file.metadata, "not the state of a search").numbers("halving", 2 * n);
    alive_.assign(n, ChoiceVector(length));
    for (size_t i = 0; i < choices.size(); ++i) alive_[i / length][i % length] = static_cast<int>(choices[i]);
    sums_.resize(n);
    counts_.resize(n);
    for (size_t i = 0; i < n; ++i) sums_[i] = scores[2 * i], counts_[i] = scores[2 * i + 1];
  }

 private:
  static constexpr uint32_t kStart = 0xFFFFFFFF;  // not an iteration
  size_t turn(int64_t iteration, int64_t index) const {
    return static_cast<size_t>(iteration % length_ * children_ + index) % alive_.size();
  }
  int64_t children_, rounds_ = 1, length_ = 1;  // length: iterations of a round
  std::vector<ChoiceVector> alive_;
  std::vector<double> sums_, counts_;
};

template <class Type>
std::unique_ptr<Sampler> make(const SearchSpace& space, Device& device, const SamplerConfig& config) {
  return std::make_unique<Type>(space, device, config);
}

struct Kind {
  const char* name;
  uint32_t stream;  // no two alike, and never another one: a search is resumed and repeated by its draws
  std::unique_ptr<Sampler> (*make)(const SearchSpace&, Device&, const SamplerConfig&);
};
constexpr Kind kKinds[]{
    {"enas", 0, make<EnasSampler>}, {"random", 1, make<RandomSampler>}, {"halving", 2, make<HalvingSampler>}};

const Kind& kind_named(const std::string& name) {
  for (const Kind& kind : kKinds)
    if (name == kind.name) return kind;
  fail("no sampler named " + name);
}

}  // namespace

std::vector<std::string> sampler_names() {
  std::vector<std::string> names;
  for (const Kind& kind : kKinds) names.push_back(kind.name);
  return names;
}

uint32_t sampler_stream(const std::string& name) { return kind_named(name).stream; }

std::unique_ptr<Sampler> make_sampler(const std::string& name, const SearchSpace& space,
                                      Device& controller_device, const SamplerConfig& config) {
  return kind_named(name).make(space, controller_device, config);
}

}  // namespace gm
