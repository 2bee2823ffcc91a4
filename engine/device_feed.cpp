#include "engine/device_feed.h"

#include <algorithm>
#include <cstring>

#include "kernels/common/op.h"

namespace gm {

DeviceFeed::DeviceFeed(Device& device, Session& session, ImagePool& pool, Config config)
    : device_(device),
      session_(session),
      pool_(pool),
      config_(std::move(config)),
      batch_(session.graph().spec(config_.pixels).shape[0]) {
  hyper_at_ = aligned_bytes(sizeof(StepState));
  labels_at_ = hyper_at_ + aligned_bytes(config_.hyper * sizeof(float));
  const bool labelled = config_.labels != kAbsent;
  samples_at_ = labels_at_ + (labelled ? aligned_bytes(session.graph().spec(config_.labels).bytes()) : 0);
  record_bytes_ = samples_at_ + static_cast<size_t>(batch_) * sizeof(AugmentSample);
  for (ValueId id : config_.results) results_bytes_ += aligned_bytes(session.graph().spec(id).bytes());
  const OpDef& op = find_op("augment");
  const Specs in{{Shape{0}, DType::u8}, {Shape{batch_, sizeof(AugmentSample)}, DType::u8}};
  const TensorSpec out = op.infer(config_.augment, in)[0], &pixels = session.graph().spec(config_.pixels);
  GM_CHECK(out.str() == pixels.str(), "the network takes " + pixels.str() + ", not " + out.str());
  scratch_ = Buffer(device, op.workspace(device.backend(), Pass::forward, config_.augment, in));
  for (Slot& s : slots_) {
    s.host = HostBuffer(device, record_bytes_);
    s.results = HostBuffer(device, results_bytes_);
    s.record = Buffer(device, record_bytes_);
    s.ready = device.make_event();
    s.done = device.make_event();
    for (size_t kind = 0; kind < config_.work.size(); ++kind)
      s.steps.push_back(std::make_unique<RepeatedWork>(device, [this, &s, kind] { enqueue(s, kind); }));
  }
}

std::optional<DeviceFeed::Results> DeviceFeed::push(const HostBatch& batch, const StepState& state,
                                                    std::span<const float> hyper, size_t kind) {
  GM_CHECK(batch.count > 0 && batch.count <= batch_ && hyper.size() == config_.hyper,
           "a batch that does not fit its feed");
  std::optional<Results> results;
  if (next_ - oldest_ == ImagePool::kSlots) results = pop();
  Slot& slot = slots_[next_ % ImagePool::kSlots];
  char* host = slot.host.data();
  std::memcpy(host, &state, sizeof state);
  if (!hyper.empty()) std::memcpy(host + hyper_at_, hyper.data(), hyper.size_bytes());
  if (config_.labels != kAbsent)
    write_targets(batch, session_.graph().spec(config_.labels), host + labels_at_);
  auto* samples = reinterpret_cast<AugmentSample*>(host + samples_at_);
  std::memcpy(samples, batch.samples.data(), static_cast<size_t>(batch.count) * sizeof(AugmentSample));
  pool_.bring(static_cast<int>(next_ % ImagePool::kSlots), batch,
              {samples, static_cast<size_t>(batch.count)});
  for (int64_t i = batch.count; i < batch_; ++i) samples[i] = samples[0];
  device_.start_upload(slot.record.data(), host, record_bytes_);
  device_.record(*slot.ready, Stream::uploads);
  device_.wait(Stream::kernels, *slot.ready);
  if (slot.generation != pool_.generation())
    for (auto& step : slot.steps) step->invalidate();
  slot.generation = pool_.generation();
  slot.steps[kind]->run();
  device_.record(*slot.done, Stream::kernels);
  ++next_;
  return results;
}

bool DeviceFeed::captured() const {
  return std::ranges::any_of(slots_[0].steps, [](const auto& step) { return step->captured(); });
}

std::string DeviceFeed::capture_error() const {
  for (const auto& step : slots_[0].steps)
    if (!step->capture_error().empty()) return step->capture_error();
  return "";
}

std::optional<DeviceFeed::Results> DeviceFeed::pop() {
  if (oldest_ == next_) return std::nullopt;
  return collect(slots_[oldest_++ % ImagePool::kSlots]);
}

void DeviceFeed::enqueue(Slot& slot, size_t kind) {
  char* record = static_cast<char*>(slot.record.data());
  if (config_.labels != kAbsent) {
    const View labels = session_.value(config_.labels);
    device_.copy(labels.data, record + labels_at_, labels.spec.bytes());
  }
  const View in[] = {pool_.view(), {record + samples_at_, {Shape{batch_, sizeof(AugmentSample)}, DType::u8}}};
  const View out[] = {session_.value(config_.pixels)};
  const View scratch = scratch_.view(0, {Shape{static_cast<int64_t>(scratch_.bytes())}, DType::u8});
  const Context ctx = device_.context();
  static const int augment = op_index(find_op("augment"));
  kernel_table(device_.backend())[augment].forward(
      OpCall{config_.augment, in, out, {}, {}, {}, {}, scratch, ctx});
  session_.use_step(reinterpret_cast<const StepState*>(record));
  config_.work[kind]({record + hyper_at_, {Shape{static_cast<int64_t>(config_.hyper)}, DType::f32}});
  char* results = slot.results.data();
  for (ValueId id : config_.results) {
    const View v = session_.value(id);
    device_.start_download(results, v.data, v.spec.bytes());
    results += aligned_bytes(v.spec.bytes());
  }
}

DeviceFeed::Results DeviceFeed::collect(Slot& slot) {
  device_.wait(*slot.done);
  Results all;
  const char* from = slot.results.data();
  for (ValueId id : config_.results) {
    const TensorSpec& spec = session_.graph().spec(id);
    std::vector<float> values(spec.shape.numel());
    if (spec.dtype == DType::bf16)
      for (size_t i = 0; i < values.size(); ++i) values[i] = to_float(reinterpret_cast<const bf16*>(from)[i]);
    else
      std::memcpy(values.data(), from, spec.bytes());
    from += aligned_bytes(spec.bytes());
    all.push_back(std::move(values));
  }
  return all;
}

}  // namespace gm
