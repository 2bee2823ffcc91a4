#include "tools/classify.h"

#include <fmt/format.h>

#include <cstdio>

namespace gm {

std::vector<std::string> class_names(const Architecture& a) {
  std::vector<std::string> names = a.class_names;
  for (int c = static_cast<int>(names.size()); c < a.classes; ++c) names.push_back(std::to_string(c));
  return names;
}

Classifier::Classifier(Predictor& predictor, const TransformConfig& transform, const Options& options)
    : predictor_(predictor), transform_(transform), options_(options) {}

void Classifier::run(const std::shared_ptr<const Dataset>& data, const std::vector<int64_t>& rows,
                     const Sink& sink) {
  Progress progress(!options_.quiet);
  LoaderConfig config{.batch = predictor_.batch(), .transform = transform_};
  config.cache_bytes = 0;  // every image is read once
  config.skip_bad = !options_.strict && options_.total > 1;
  config.on_bad = [&](int64_t, const std::string& message) {
    progress.clear();
    fmt::print(stderr, "{}: skipped: {}\n", options_.tool, message);
    ++bad_;
  };
  Loader loader(data, rows, config);
  loader.start_epoch(0, 0);
  const int classes = predictor_.architecture().classes;
  HostBatch batch;
  std::vector<Prediction> out;
  while (loader.next(batch)) {
    const auto& logits = predictor_.logits(batch.pixels);
    out.clear();
    for (int64_t i = 0; i < batch.count; ++i) {
      const float* z = logits.data() + i * classes;
      out.push_back({data->id(batch.rows[i]), softmax(z, classes), std::vector<float>(z, z + classes)});
    }
    done_ += batch.count;
    sink(batch.rows, out);
    progress.update(
        static_cast<double>(done_ + bad_) / static_cast<double>(options_.total), "classifying",
        fmt::format("{}/{}  {:.0f} img/s", done_, options_.total, static_cast<double>(done_) / seconds()));
  }
}

void Classifier::expect_some() const {
  if (done_ == 0) fail("none of the " + std::to_string(options_.total) + " images could be read");
}

std::string Classifier::summary() const {
  return fmt::format("{} images classified{} in {} ({:.0f} img/s)", done_,
                     bad_ ? fmt::format(", {} skipped", bad_) : "", duration_text(seconds()),
                     static_cast<double>(done_) / seconds());
}

double Classifier::seconds() const {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
}

}  // namespace gm
