#include "tools/read_images.h"

#include <fmt/format.h>

#include "kernels/common/error.h"

namespace gm {

std::vector<std::string> class_names(const Architecture& a) {
  std::vector<std::string> names = a.class_names;
  for (int c = static_cast<int>(names.size()); c < a.classes; ++c) names.push_back(std::to_string(c));
  return names;
}

ImageReader::ImageReader(const TransformConfig& transform, int64_t batch, const Options& options)
    : transform_(transform), batch_(batch), options_(options) {}

void ImageReader::run(const std::shared_ptr<const Dataset>& data, const std::vector<int64_t>& rows,
                      const Sink& sink) {
  Progress progress(!options_.quiet);
  LoaderConfig config{.batch = batch_, .transform = transform_};
  config.cache_bytes = 0;  // every image is read once
  config.device_images = options_.device_images;
  config.skip_bad = !options_.strict && options_.total > 1;
  config.on_bad = [&](int64_t, const std::string& message) {
    progress.clear();
    say(fmt::format("{}: skipped: {}", options_.tool, message));
    ++bad_;
    check_stop();  // next() gives no batch of which no image is left
  };
  Loader loader(data, rows, config);
  loader.start_epoch(0, 0);
  HostBatch batch;
  while (loader.next(batch)) {
    sink(batch);
    done_ += batch.count;
    check_stop();
    progress.update(static_cast<double>(options_.before + done_ + bad_) / static_cast<double>(options_.total),
                    options_.doing,
                    fmt::format("{}/{}  {:.0f} img/s", options_.before + done_, options_.total,
                                static_cast<double>(done_) / seconds()));
  }
}

void ImageReader::check_stop() const {
  if (options_.stop && options_.stop->load())
    fail(fmt::format("interrupted after {} of {} images{}{}", options_.before + done_ + bad_, options_.total,
                     options_.lost.empty() ? "" : "; ", options_.lost));
}

void ImageReader::expect_some() const {
  if (done_ == 0) fail("none of the " + std::to_string(options_.total) + " images could be read");
}

std::string ImageReader::summary() const {
  return fmt::format("{} images {}{} in {} ({:.{}f} img/s)", done_, options_.done,
                     bad_ ? fmt::format(", {} skipped", bad_) : "", duration_text(seconds()),
                     static_cast<double>(done_) / seconds(),
                     static_cast<double>(done_) < 10 * seconds() ? 1 : 0);
}

double ImageReader::seconds() const { return seconds_now() - start_; }

}  // namespace gm
