// One pool of weights for all networks of a search space, as in ENAS (Pham et al. 2018, arXiv:1802.03268,
// section 2.1): a child is an ordinary network whose parameters are slices of the largest network's.
#pragma once
#include <list>
#include <map>
#include <memory>

#include "engine/batch_source.h"
#include "engine/optimizer.h"
#include "engine/safetensors.h"
#include "engine/session.h"
#include "layers/network.h"
#include "layers/search_space.h"

namespace gm {

/// Neighbouring elements that a child's flat buffer and the pool's have in common.
struct SliceRun {
  int64_t pool, child, length;
};

/// Values and optimizer moments of the largest network, in host memory. A slice holds the leading channels of
/// every tensor and the centre of the spatial extent of a convolution: the 3x3 kernel is the middle of the
/// 5x5 one.
class SharedWeights {
 public:
  /// The same values for the same seed everywhere.
  SharedWeights(const SearchSpace& space, uint64_t seed);

  const ParameterTable& table() const { return table_; }
  /// Where the trainable parameters of a child lie. Throws gm::Error for a tensor that does not fit.
  std::vector<SliceRun> slices(const ParameterTable& child) const;

  /// Flat buffers laid out as table(): the values, and the optimizer's two moments of them.
  enum Part { values, moment1, moment2 };
  static constexpr Part kParts[]{values, moment1, moment2};
  std::vector<float>& buffer(Part part) { return buffers_[part]; }
  const std::vector<float>& buffer(Part part) const { return buffers_[part]; }

  void save(TensorFile& file) const;
  /// Throws gm::Error naming the file when it is damaged or of another space; the buffers read
  /// before that stay changed.
  void load(const TensorFile& file);

 private:
  ParameterTable table_;
  std::vector<float> buffers_[std::size(kParts)];
};

struct ChildOptions {
  int64_t batch = 1;
  bool bf16 = false;
  double label_smoothing = 0;
  OptimizerConfig optimizer;
  uint64_t seed = 0;
};

/// One network of the space, built by build_network and fused for its device, which trains and is scored on
/// weights that it takes from a pool. Without dropout and stochastic depth: the sampling of networks is noise
/// enough.
///
/// Batch statistics, not running ones, normalise in scoring too, as in ENAS's code. Running statistics of a
/// tensor that many networks share belong to none of them, and keeping a set for every choice multiplies with
/// the choices of all layers before; recalibrating a set for every child costs as many forward passes as
/// scoring does. The statistics of the minibatch that is scored are exact for this network and these weights,
/// and free. What is reported in the end comes from networks trained from scratch, with statistics of their
/// own.
class ChildNetwork {
 public:
  /// lender: see Session.
  ChildNetwork(Device& device, const Architecture& a, const SharedWeights& pool, const ChildOptions& options,
               const Session* lender);

  /// One optimizer step on this child's slices of the pool. step: of the whole search, for the moments'
  /// correction. Returns the loss.
  double train(SharedWeights& pool, const HostBatch& batch, double lr, int64_t step);
  /// Takes the values of the pool for the logits() that follow.
  void load(const SharedWeights& pool);
  /// (batch, classes)
  std::vector<float> logits(const HostBatch& batch);

  const NetworkSize& size() const { return size_; }
  const Session& session() const { return *session_; }

 private:
  void gather(const SharedWeights& pool, SharedWeights::Part part, const Buffer& to);
  void scatter(SharedWeights& pool, SharedWeights::Part part, const Buffer& from);
  void upload(const HostBatch& batch);

  ParameterTable table_;
  NetworkGraph net_;
  NetworkSize size_;
  std::vector<SliceRun> slices_;
  std::vector<float> flat_;
  std::unique_ptr<Weights> weights_;
  std::unique_ptr<Session> session_;
  std::unique_ptr<Optimizer> optimizer_;
};

/// The children asked for last. All run in the memory of the largest network.
class ChildCache {
 public:
  ChildCache(Device& device, const SearchSpace& space, const SharedWeights& layout,
             const ChildOptions& options, size_t capacity);
  ChildNetwork& child(const ChoiceVector& choices);
  int64_t built() const { return built_; }
  double build_seconds() const { return build_seconds_; }

 private:
  Device& device_;
  const SearchSpace& space_;
  const SharedWeights& layout_;
  ChildOptions options_;
  size_t capacity_;
  ChildNetwork largest_;
  std::list<std::pair<ChoiceVector, std::unique_ptr<ChildNetwork>>> recent_;  // the last one first
  std::map<ChoiceVector, decltype(recent_)::iterator> index_;
  int64_t built_ = 0;
  double build_seconds_ = 0;
};

}  // namespace gm
