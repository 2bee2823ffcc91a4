// A card's JPEG decoder that has to show first that it sees what the processor sees, and that it is faster.
#pragma once
#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "engine/jpeg_decoder.h"
#include "kernels/common/clock.h"

namespace gm {

/// Decoders round differently and place chroma samples differently, so pixels need not be equal. But the
/// first picture is decoded by both, and one that is off by more than kMost levels of 255 in the mean of its
/// samples has been decoded wrongly: then one line on standard error says so, and the processor decodes all.
///
/// Then the clock decides: the card decodes kTimed pictures to warm up and kTimed that count, the processor
/// as many. They do so in stages, not both each picture: callers would queue at the slower one, neither would
/// be timed under all of them, and a card of half the processor's speed could win. Where the card's median is
/// the longer one, a line says so unless `quiet`, and decode() is false from then on. A clock that is empty
/// decides nothing: the card decodes all that it can.
class CheckedJpegDecoder : public JpegDecoder {
 public:
  static constexpr double kMost = 4;
  static constexpr size_t kTimed = 32;
  using Clock = std::function<double()>;  // seconds

  explicit CheckedJpegDecoder(std::unique_ptr<JpegDecoder> decoder, bool quiet = false,
                              Clock clock = seconds_now)
      : decoder_(std::move(decoder)), quiet_(quiet), clock_(std::move(clock)) {}
  std::string description() const override { return decoder_->description(); }
  bool decode(std::span<const uint8_t> file, int width, int height, std::span<uint8_t> rgb) override;

 private:
  enum class Stage { check, warm_up, time_card, time_processor, card, processor };
  /// Both decode the file; ends the stage `check` where both can.
  bool decode_first(std::span<const uint8_t> file, int width, int height, std::span<uint8_t> rgb);
  /// Takes the time of a call that began in `stage`; the last one of a stage ends it.
  void count(Stage stage, double seconds);

  std::unique_ptr<JpegDecoder> decoder_;
  bool quiet_;
  Clock clock_;
  std::mutex mutex_;  // while the first picture is checked, the others wait for it; guards what follows
  std::atomic<Stage> stage_ = Stage::check;
  std::vector<double> seconds_;  // of the stage's calls
  double card_seconds_ = 0;      // median
};

}  // namespace gm
