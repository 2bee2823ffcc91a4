#include "engine/feed.h"

#include "engine/device_feed.h"

namespace gm {

namespace {

/// A step at a time: whatever the device does has been done when push() returns.
class DirectFeed : public Feed {
 public:
  DirectFeed(Device& device, Session& session, Config config)
      : device_(device),
        session_(session),
        config_(std::move(config)),
        hyper_(device, config_.hyper * sizeof(float)) {}

  std::optional<Results> push(const HostBatch& batch, const StepState& state, std::span<const float> hyper,
                              size_t kind) override {
    GM_CHECK(hyper.size() == config_.hyper, "a batch that does not fit its feed");
    session_.upload(config_.pixels, batch.pixels.data());
    if (config_.labels != kAbsent) upload_targets(batch);
    session_.set_step(state.step);
    if (!hyper.empty()) device_.upload(hyper_.data(), hyper.data(), hyper.size_bytes());
    config_.work[kind](hyper_.view(0, {Shape{static_cast<int64_t>(config_.hyper)}, DType::f32}));
    Results results;
    for (ValueId id : config_.results) results.push_back(session_.download(id));
    return results;
  }
  std::optional<Results> pop() override { return std::nullopt; }
  size_t bytes() const override { return hyper_.bytes(); }

 private:
  void upload_targets(const HostBatch& batch) {
    const TensorSpec& spec = session_.graph().spec(config_.labels);
    std::vector<char> targets(spec.bytes());
    write_targets(batch, spec, targets.data());
    session_.upload(config_.labels, targets.data());
  }

  Device& device_;
  Session& session_;
  Config config_;
  Buffer hyper_;
};

}  // namespace

std::unique_ptr<Feed> make_feed(Device& device, Session& session, ImagePool* images, Feed::Config config) {
  if (images) return std::make_unique<DeviceFeed>(device, session, *images, std::move(config));
  return std::make_unique<DirectFeed>(device, session, std::move(config));
}

}  // namespace gm
