// Steps of a session without a wait between them: batches are uploaded beside the kernels into one of two
// places, the device augments, and results are read back when they have long been there. The work of a step
// is captured as a CUDA graph where the device can.
#pragma once
#include "engine/feed.h"
#include "engine/image_pool.h"
#include "engine/repeated_work.h"

namespace gm {

class DeviceFeed : public Feed {
 public:
  /// All must outlive the feed. Feeds of one pool, and of sessions that share memory, take turns: one is
  /// emptied with pop() before another is pushed to.
  DeviceFeed(Device& device, Session& session, ImagePool& pool, Config config);

  /// Queues a step. Rows past batch.count are of the first image again. Returns the results of the oldest
  /// step when it had to make room, else nothing.
  std::optional<Results> push(const HostBatch& batch, const StepState& state = {},
                              std::span<const float> hyper = {}, size_t kind = 0) override;
  std::optional<Results> pop() override;

  bool captured() const override;
  std::string capture_error() const override;
  size_t bytes() const override {
    return scratch_.bytes() + slots_[0].record.bytes() + slots_[1].record.bytes();
  }

 private:
  struct Slot {
    HostBuffer host, results;  // page-locked: record of a step, its results
    Buffer record;             // the record on the device
    std::unique_ptr<Event> ready, done;
    std::vector<std::unique_ptr<RepeatedWork>> steps;  // one of each kind
    int64_t generation = -1;                           // of the pool when the step last ran
  };
  void enqueue(Slot& slot, size_t kind);
  Results collect(Slot& slot);

  Device& device_;
  Session& session_;
  ImagePool& pool_;
  Config config_;
  int64_t batch_;
  // Record of a step: state, hyperparameters, labels, samples.
  size_t hyper_at_, labels_at_, samples_at_, record_bytes_, results_bytes_ = 0;
  Buffer scratch_;
  Slot slots_[ImagePool::kSlots];
  int64_t next_ = 0, oldest_ = 0;  // steps pushed, steps whose results were returned
};

}  // namespace gm
