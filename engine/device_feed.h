// Steps of a session without a wait between them: batches are uploaded beside the kernels into one of two
// places, the device augments, and results are read back when they have long been there. The work of a step
// is captured as a CUDA graph where the device can.
#pragma once
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "engine/image_pool.h"
#include "engine/repeated_work.h"
#include "engine/session.h"

namespace gm {

class DeviceFeed {
 public:
  struct Config {
    ValueId pixels = kAbsent;      // input of the session: what the op `augment` leaves
    ValueId labels = kAbsent;      // of NetworkGraph, or absent
    Attrs augment;                 // of that op
    std::vector<ValueId> results;  // values of the session (PlanOptions::keep), f32 or bf16
    size_t hyper = 0;              // f32 hyperparameters that every step brings along
    /// The kinds of a step: what it does between its inputs and its results, on the stream of kernels and
    /// without waiting. `hyper` is in the device's memory. Called again to repeat the step where capturing
    /// is not possible.
    std::vector<std::function<void(const View& hyper)>> work;
  };
  using Results = std::vector<std::vector<float>>;

  /// All must outlive the feed. Feeds of one pool, and of sessions that share memory, take turns: one is
  /// emptied with pop() before another is pushed to.
  DeviceFeed(Device& device, Session& session, ImagePool& pool, Config config);

  /// Queues a step of one kind (an index into Config::work). Rows past batch.count do not count and are of
  /// the first image again. Returns the results of the oldest step when it had to make room, else nothing:
  /// results come in the order of the steps.
  std::optional<Results> push(const HostBatch& batch, const StepState& state = {},
                              std::span<const float> hyper = {}, size_t kind = 0);
  /// Waits for the oldest step and returns its results; nothing when none is left.
  std::optional<Results> pop();

  /// True once steps run as a graph; why not, when capturing was tried and failed.
  bool captured() const;
  std::string capture_error() const;
  /// Memory on the device, without the pool's.
  size_t bytes() const { return scratch_.bytes() + slots_[0].record.bytes() + slots_[1].record.bytes(); }

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
