#include "layers/shared_weights.h"

#include <cmath>

#include "kernels/common/clock.h"
#include "layers/rewrites.h"

namespace gm {

namespace {

// Whether an axis is a kernel's height or width, which a child takes the centre of, and not one of channels,
// which it takes the first of. Convolutions are (out, k, k, in), depthwise ones (k, k, channels).
bool spatial(const Shape& s, int axis) {
  return (s.rank == 4 && (axis == 1 || axis == 2)) || (s.rank == 3 && axis < 2);
}

void add_runs(std::vector<SliceRun>& runs, const Parameter& pool, const Parameter& child) {
  const Shape &p = pool.shape, &c = child.shape;
  bool fits = p.rank == c.rank;
  for (int d = 0; fits && d < c.rank; ++d) fits = c[d] <= p[d] && (!spatial(c, d) || (p[d] - c[d]) % 2 == 0);
  if (!fits) fail("search: tensor '" + child.name + "' " + c.str() + " is no slice of " + p.str());
  const int64_t length = c[c.rank - 1], rows = c.numel() / length;
  for (int64_t row = 0; row < rows; ++row) {
    int64_t rest = row, offset = 0, stride = p[p.rank - 1];
    for (int d = c.rank - 2; d >= 0; --d) {
      const int64_t at = rest % c[d] + (spatial(c, d) ? (p[d] - c[d]) / 2 : 0);
      rest /= c[d];
      offset += at * stride;
      stride *= p[d];
    }
    const SliceRun run{pool.offset + offset, child.offset + row * length, length};
    if (!runs.empty() && runs.back().pool + runs.back().length == run.pool &&
        runs.back().child + runs.back().length == run.child)
      runs.back().length += length;
    else
      runs.push_back(run);
  }
}

Architecture without_dropout(Architecture a) {
  a.dropout = a.stochastic_depth = a.hidden.dropout = 0;
  return a;
}

}  // namespace

SharedWeights::SharedWeights(const SearchSpace& space, uint64_t seed) {
  build_network(without_dropout(space.largest()), table_, {.training = true});
  auto host = open_device("cpu", {.threads = 1});
  Weights initial(*host, table_, false, false);
  initial.initialize(table_, seed);
  buffers_[values] = initial.master().download<float>();
  buffers_[moment1].assign(buffers_[values].size(), 0.f);
  buffers_[moment2] = buffers_[moment1];
}

std::vector<SliceRun> SharedWeights::slices(const ParameterTable& child) const {
  std::vector<SliceRun> runs;
  for (const Parameter& p : child) {
    if (!p.trainable) continue;
    const int at = table_.find(p.name);
    if (at < 0) fail("search: the largest network has no tensor '" + p.name + "'");
    add_runs(runs, table_[at], p);
  }
  return runs;
}

void SharedWeights::save(TensorFile& file) const {
  for (const Part part : kParts)
    file.tensors["shared/" + std::to_string(part)] =
        StoredTensor::of(Shape{static_cast<int64_t>(buffer(part).size())}, buffer(part));
}

void SharedWeights::load(const TensorFile& file) {
  for (const Part part : kParts) {
    std::vector<float> stored = file.at("shared/" + std::to_string(part)).floats();
    if (stored.size() != buffer(part).size()) fail(file.path + ": belongs to another search space");
    buffer(part) = std::move(stored);
  }
}

ChildNetwork::ChildNetwork(Device& device, const Architecture& a, const SharedWeights& pool,
                           const ChildOptions& o, const Session* lender)
    : net_(fuse_for_training(build_network(without_dropout(a), table_,
                                           {.batch = o.batch,
                                            .training = true,
                                            .dtype = o.bf16 ? DType::bf16 : DType::f32,
                                            .label_smoothing = o.label_smoothing}),
                             {}, device.backend())),
      size_(network_size(a)),
      slices_(pool.slices(table_)),
      flat_(static_cast<size_t>(table_.trainable_elements()), 0.f),
      weights_(std::make_unique<Weights>(device, table_, o.bf16, true)) {
  PlanOptions options = training_options(net_, false);
  options.keep.push_back(net_.logits);
  session_ = std::make_unique<Session>(device, net_.graph, *weights_, options, o.seed, lender);
  optimizer_ = std::make_unique<Optimizer>(device, o.optimizer, table_, *weights_);
}

void ChildNetwork::gather(const SharedWeights& pool, SharedWeights::Part part, const Buffer& to) {
  if (!to.bytes()) return;  // no second moment
  const float* from = pool.buffer(part).data();
  for (const SliceRun& r : slices_) std::copy_n(from + r.pool, r.length, flat_.data() + r.child);
  to.upload(flat_);
}

void ChildNetwork::scatter(SharedWeights& pool, SharedWeights::Part part, const Buffer& from) {
  if (!from.bytes()) return;
  from.device().download(flat_.data(), from.data(), flat_.size() * sizeof(float));
  float* to = pool.buffer(part).data();
  for (const SliceRun& r : slices_) std::copy_n(flat_.data() + r.child, r.length, to + r.pool);
}

void ChildNetwork::upload(const HostBatch& batch) {
  session_->upload(net_.pixels, batch.pixels.data());
  session_->upload(net_.labels, batch.labels.data());
}

void ChildNetwork::load(const SharedWeights& pool) {
  gather(pool, SharedWeights::values, weights_->master());
  weights_->refresh_bf16();
}

double ChildNetwork::train(SharedWeights& pool, const HostBatch& batch, double lr, int64_t step) {
  load(pool);
  gather(pool, SharedWeights::moment1, optimizer_->moment1());
  gather(pool, SharedWeights::moment2, optimizer_->moment2());
  upload(batch);
  session_->forward();
  session_->backward();
  optimizer_->update(lr, step);
  const double loss = session_->download(net_.loss)[0];
  if (!std::isfinite(loss))
    fail("the loss of the shared weights is not finite at step " + std::to_string(step) +
         ": lower optimizer.lr");
  scatter(pool, SharedWeights::values, weights_->master());
  scatter(pool, SharedWeights::moment1, optimizer_->moment1());
  scatter(pool, SharedWeights::moment2, optimizer_->moment2());
  return loss;
}

std::vector<float> ChildNetwork::logits(const HostBatch& batch) {
  upload(batch);
  session_->forward();
  return session_->download(net_.logits);
}

ChildCache::ChildCache(Device& device, const SearchSpace& space, const SharedWeights& layout,
                       const ChildOptions& options, size_t capacity)
    : device_(device),
      space_(space),
      layout_(layout),
      options_(options),
      capacity_(capacity),
      largest_(device, space.largest(), layout, options, nullptr) {}

ChildNetwork& ChildCache::child(const ChoiceVector& choices) {
  if (const auto found = index_.find(choices); found != index_.end()) {
    recent_.splice(recent_.begin(), recent_, found->second);
    return *recent_.front().second;
  }
  if (recent_.size() >= capacity_) {
    index_.erase(recent_.back().first);
    recent_.pop_back();
  }
  const double start = seconds_now();
  recent_.emplace_front(choices, std::make_unique<ChildNetwork>(device_, space_.network(choices), layout_,
                                                                options_, &largest_.session()));
  build_seconds_ += seconds_now() - start;
  ++built_;
  index_[choices] = recent_.begin();
  return *recent_.front().second;
}

}  // namespace gm
