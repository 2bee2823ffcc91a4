// The networks that a search chooses from: S2 section 2.2 leaves the space open, so it is MnasNet's (Tan et
// al. 2019, arXiv:1807.11626, section 4) reduced to MBConv stages. Stem, strides and head are those of a base
// network.
#pragma once
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "layers/architecture.h"

namespace gm {

/// One index into SpaceOptions for every kind of choice of every stage: stage by stage, in the order of
/// ChoiceKind.
using ChoiceVector = std::vector<int>;

enum class ChoiceKind : int { kernel, expand, width, layers, se, residual };
constexpr int kChoiceKinds = 6;

/// What a stage may be. A kind with one option is no choice.
struct SpaceOptions {
  std::vector<int> kernel{3, 5}, expand{1, 3, 6};
  std::vector<double> width{0.75, 1, 1.25};  // times the base width, to the nearest multiple of 8, at least 8
  std::vector<int> layers{1, 2, 3, 4};
  std::vector<double> se{0, 0.25};  // squeeze width as a share of the block's input channels
  std::vector<int> residual{1, 0};  // the identity skip: with or without
  int64_t max_macs = 0;             // of a network that is proposed; 0: any
};

/// Reads `search.space`; absent lists have the defaults above. Throws gm::Error for an empty list, a value
/// out of range or one that stands there twice.
SpaceOptions read_space_options(Section section);

class SearchSpace {
 public:
  /// Throws gm::Error when the base has stages other than mbconv.
  SearchSpace(Architecture base, SpaceOptions options);

  const Architecture& base() const { return base_; }
  int stages() const { return static_cast<int>(base_.stages.size()); }
  int options(ChoiceKind kind) const;
  /// Length of a choice vector: stages() * kChoiceKinds.
  int length() const { return stages() * kChoiceKinds; }
  ChoiceKind kind(int position) const { return static_cast<ChoiceKind>(position % kChoiceKinds); }
  int options_at(int position) const { return options(kind(position)); }
  /// Number of choice vectors; widths that round alike count apart.
  double size() const;

  /// Throws gm::Error when the vector has another length or an index out of range.
  Architecture network(const ChoiceVector& choices) const;
  /// Whether there is a max_macs.
  bool limited() const { return options_.max_macs > 0; }
  /// Whether it is within max_macs.
  bool allows(const ChoiceVector& choices) const;
  /// The first of `draw`'s networks that is within max_macs. Throws gm::Error after 10,000 that are not.
  ChoiceVector first_allowed(const std::function<ChoiceVector()>& draw) const;
  /// The network whose every tensor holds that of any child as a slice: all options at their largest.
  Architecture largest() const { return extreme(true); }
  Architecture smallest() const { return extreme(false); }
  /// The first vector that gives the stages of `a`; none when its stem, stages or head are not in the space.
  std::optional<ChoiceVector> choices_of(const Architecture& a) const;
  /// "k3 e1 w16 n1, k5 e6 w24 n2 se0.25 plain": kernel, expansion, width, layers, squeeze width; plain: no
  /// residual.
  static std::string text(const Architecture& a);

 private:
  Architecture extreme(bool largest) const;
  StageSpec stage(int index, const int* choices) const;
  Architecture base_;
  SpaceOptions options_;
};

/// Parameters (trainable) and multiply-accumulates of a network, as gm_model prints them.
struct NetworkSize {
  int64_t parameters = 0, macs = 0;
};
NetworkSize network_size(const Architecture& a);

}  // namespace gm
