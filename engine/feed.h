// Steps of a session, one for each batch: inputs, what the step does, results. On a card steps follow each
// other without a wait (device_feed.h), elsewhere each one is done when it is pushed.
#pragma once
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "engine/batch_source.h"
#include "engine/session.h"

namespace gm {

class ImagePool;

class Feed {
 public:
  struct Config {
    ValueId pixels = kAbsent;      // input of the session; where the device augments: what that op leaves
    ValueId labels = kAbsent;      // of NetworkGraph, or absent
    Attrs augment;                 // of the op `augment`, where the device does
    std::vector<ValueId> results;  // values of the session (PlanOptions::keep), f32 or bf16
    size_t hyper = 0;              // f32 hyperparameters that every step brings along
    /// The kinds of a step: what it does between its inputs and its results, on the stream of kernels and
    /// without waiting. `hyper` is in the device's memory. Called again to repeat the step where capturing
    /// is not possible.
    std::vector<std::function<void(const View& hyper)>> work;
  };
  using Results = std::vector<std::vector<float>>;

  virtual ~Feed() = default;

  /// A step of one kind (an index into Config::work). Rows past batch.count do not count. Returns the results
  /// of the oldest step that has some to give: its own at once, or on a card those of a step before, if any.
  /// Results come in the order of the steps.
  virtual std::optional<Results> push(const HostBatch& batch, const StepState& state = {},
                                      std::span<const float> hyper = {}, size_t kind = 0) = 0;
  /// Waits for the oldest step and returns its results; nothing when none is left.
  virtual std::optional<Results> pop() = 0;

  /// True once steps run as a CUDA graph; why not, when capturing was tried and failed.
  virtual bool captured() const { return false; }
  virtual std::string capture_error() const { return ""; }
  /// Memory on the device, without the pool's.
  virtual size_t bytes() const = 0;
};

/// The feed of a session: a DeviceFeed with `images`, whose batches have samples and images; without, one
/// that does a step at a time and takes batches with pixels. All must outlive it.
std::unique_ptr<Feed> make_feed(Device& device, Session& session, ImagePool* images, Feed::Config config);

}  // namespace gm
