// Who proposes the next network of a search: ENAS's controller, chance, or successive halving.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "layers/controller.h"
#include "layers/search_space.h"

namespace gm {

struct ScoredChild {
  ChoiceVector choices;
  double reward = 0;
};

/// A search runs `iterations` times: shared weights are trained with children of to_train(), then `children`
/// networks of to_score() are scored, then learn() sees them. All randomness comes from `draws`, so that a
/// search can be repeated from any of its iterations.
class Sampler {
 public:
  virtual ~Sampler() = default;
  virtual ChoiceVector to_train(PhiloxStream& draws) = 0;
  /// index: 0 .. children - 1 within the iteration.
  virtual ChoiceVector to_score(PhiloxStream& draws, int64_t iteration, int64_t index) = 0;
  virtual void learn(int64_t iteration, const std::vector<ScoredChild>& children) = 0;
  /// A few words for the progress line.
  virtual std::string status() const { return ""; }
  virtual void save(TensorFile&) const {}
  /// Throws gm::Error naming the file, and changes nothing, when it does not hold what save() of this space
  /// wrote.
  virtual void load(const TensorFile&) {}
};

struct SamplerConfig {
  int64_t iterations = 1, children = 1;
  uint64_t seed = 0;
  ControllerConfig controller;
};

/// All of them propose networks that the space allows. Throws gm::Error for a name that is none of these.
/// enas: the controller proposes all children and learns once an iteration.
/// random: every choice uniform and independent.
/// halving: successive halving (Jamieson & Talwalkar 2016, arXiv:1502.07943) with shared weights. The
///   iterations are split into R rounds; the first scores as many random networks as it can once each, every
///   later round trains and scores the better half of the last, so that a network that stays is scored twice
///   as often each time.
std::unique_ptr<Sampler> make_sampler(const std::string& name, const SearchSpace& space,
                                      Device& controller_device, const SamplerConfig& config);

std::vector<std::string> sampler_names();
/// The number that keeps a sampler's draws apart from all others'. Throws as make_sampler.
uint32_t sampler_stream(const std::string& name);

/// Every choice uniform and independent; drawn again until the space allows the network.
ChoiceVector uniform_choices(const SearchSpace& space, PhiloxStream& draws);

}  // namespace gm
