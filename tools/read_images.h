// Images of data sets at a network's input size, batch by batch: what every tool that runs a network shares.
#pragma once
#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "data/loader.h"
#include "kernels/common/clock.h"
#include "layers/architecture.h"
#include "tools/cli.h"

namespace gm {

/// Names of all classes; a class without a name is called by its index.
std::vector<std::string> class_names(const Architecture& a);

class ImageReader {
 public:
  struct Options {
    std::string tool;         // name at the start of the lines about skipped images
    std::string doing, done;  // "classifying", "classified": for progress line and summary
    int64_t total = 0;        // images in all calls of run(), for the progress line
    int64_t before = 0;       // of them those that another process has read
    bool strict = false;  // throw on the first unreadable image; a single image asked for alone always does
    bool quiet = false;   // no progress line
    const std::atomic<bool>* stop = nullptr;   // ends run() with an error that says how far it came ...
    std::string lost = "no file was written";  // ... and this, unless it is empty
    const ImagePool* device_images = nullptr;  // LoaderConfig::device_images
  };
  ImageReader(const TransformConfig& transform, int64_t batch, const Options& options);

  using Sink = std::function<void(const HostBatch& batch)>;
  /// Reads these rows in order; unreadable images are reported on standard error and left out.
  void run(const std::shared_ptr<const Dataset>& data, const std::vector<int64_t>& rows, const Sink& sink);
  /// Throws gm::Error when not one image could be read.
  void expect_some() const;

  int64_t batch() const { return batch_; }
  int64_t done() const { return done_; }
  int64_t bad() const { return bad_; }
  /// "120 images classified, 1 skipped in 3 s (40 img/s)"
  std::string summary() const;

 private:
  void check_stop() const;
  double seconds() const;

  TransformConfig transform_;
  int64_t batch_;
  Options options_;
  double start_ = seconds_now();
  int64_t done_ = 0, bad_ = 0;
};

}  // namespace gm
