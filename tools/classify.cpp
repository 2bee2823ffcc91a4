#include "tools/classify.h"

#include <CLI/CLI.hpp>
#include <cmath>
#include <deque>

#include "engine/device_feed.h"
#include "kernels/common/error.h"

namespace gm {

namespace {

/// In nats.
double entropy(const std::vector<double>& p) {
  double sum = 0;
  for (double v : p) sum -= v > 0 ? v * std::log(v) : 0;
  return sum;
}

/// Adds one of `count` passes to the means. `logits` are the first image's, the next one's lie `stride` on.
void add_pass(const float* logits, int stride, int classes, int count, std::vector<Prediction>& out) {
  for (size_t i = 0; i < out.size(); ++i) {
    const float* z = logits + i * static_cast<size_t>(stride);
    const auto p = softmax(z, classes);
    Prediction& sum = out[i];
    sum.probabilities.resize(p.size());
    for (size_t c = 0; c < p.size(); ++c) sum.probabilities[c] += p[c] / count;
    sum.mutual_information -= entropy(p) / count;
    if (count == 1) sum.logits.assign(z, z + classes);
  }
}

void finish_passes(int count, Prediction& p) {
  p.entropy = entropy(p.probabilities);
  p.mutual_information = std::max(0.0, p.entropy + p.mutual_information);
  if (count > 1)
    for (double v : p.probabilities) p.logits.push_back(static_cast<float>(std::log(std::max(v, 1e-300))));
}

}  // namespace

void declare_passes(CLI::App& app, Passes& passes) {
  app.add_flag("--tta", passes.symmetries,
               "test-time augmentation: mean over the image's eight rotations and reflections");
  app.add_option("--mc-dropout", passes.dropout,
                 "mean over so many passes with dropout; adds the columns entropy and mutual_information")
      ->check(CLI::Range(2, 100000));
}

bool on_device(const Device& device, const Passes& passes) {
  return device.backend() == Backend::cuda && passes.dropout == 0;
}

int64_t rows_of(const Device& device, const Passes& passes, int64_t batch, int64_t total) {
  const int64_t views = on_device(device, passes) ? passes.views() : 1;
  return views * std::clamp<int64_t>(batch / views, 1, std::max<int64_t>(1, total));
}

std::vector<float> symmetric_view(const std::vector<float>& pixels, int side, int view) {
  std::vector<float> out(pixels.size());
  const int last = side - 1;
  const size_t image = static_cast<size_t>(side) * side * 3;
  for (size_t start = 0; start < pixels.size(); start += image)
    for (int y = 0; y < side; ++y)
      for (int x = 0; x < side; ++x) {
        int v = y, u = view & 4 ? last - x : x;
        for (int turn = 0; turn < (view & 3); ++turn) {
          const int t = v;
          v = u;
          u = last - t;
        }
        const float* from = pixels.data() + start + (static_cast<size_t>(v) * side + u) * 3;
        std::copy(from, from + 3, out.data() + start + (static_cast<size_t>(y) * side + x) * 3);
      }
  return out;
}

AugmentSample symmetric_view(const AugmentSample& sample, int side, int view) {
  // (u, v) = where the output position (x, y) of the view lies in the plain output.
  Affine at;
  if (view & 4) at.xx = -1, at.x0 = side;
  for (int turn = 0; turn < (view & 3); ++turn) at = {-at.yx, -at.yy, side - at.y0, at.xx, at.xy, at.x0};
  const Affine& m = sample.to_window;
  AugmentSample out = sample;
  out.to_window = {m.xx * at.xx + m.xy * at.yx,        m.xx * at.xy + m.xy * at.yy,
                   m.xx * at.x0 + m.xy * at.y0 + m.x0, m.yx * at.xx + m.yy * at.yx,
                   m.yx * at.xy + m.yy * at.yy,        m.yx * at.x0 + m.yy * at.y0 + m.y0};
  if (view & 1) std::swap(out.taps_x, out.taps_y);
  return out;
}

PredictionColumns columns_for(const Dataset& data, const Passes& passes) {
  PredictionColumns columns{.uncertainty = passes.dropout > 0, .id_bytes = 1};
  double ra = 0, dec = 0;
  for (int64_t i = 0; i < data.size(); ++i) {
    columns.id_bytes = std::max(columns.id_bytes, data.id(i).size());
    columns.sky = columns.sky || data.sky(i, ra, dec);
  }
  return columns;
}

Classifier::Classifier(Predictor& predictor, const TransformConfig& transform,
                       const ImageReader::Options& options, const Passes& passes)
    : predictor_(predictor),
      reader_(transform, predictor.batch() / (predictor.feed() ? passes.views() : 1),
              [&] {
                ImageReader::Options o = options;
                o.device_images = predictor.images();
                return o;
              }()),
      passes_(predictor.feed() ? Passes{.symmetries = passes.symmetries} : passes) {}

int Classifier::passes() const { return passes_.views() * std::max(1, passes_.dropout); }

// `sums`: of all passes, an image of `rows` each.
void Classifier::give(const Dataset& data, const std::vector<int64_t>& rows, std::vector<Prediction>& sums,
                      const Sink& sink) const {
  for (size_t i = 0; i < sums.size(); ++i) {
    finish_passes(passes(), sums[i]);
    sums[i].id = data.id(rows[i]);
    if (!std::isfinite(sums[i].probabilities[0]))
      fail(data.path_of(rows[i]) + ": " + sums[i].id + ": the network's scores are not finite");
    data.sky(rows[i], sums[i].ra, sums[i].dec);
  }
  sink(rows, sums);
}

void Classifier::run(const std::shared_ptr<const Dataset>& data, const std::vector<int64_t>& rows,
                     const Sink& sink) {
  if (predictor_.feed()) return run_ahead(data, rows, sink);
  reader_.run(data, rows, [&](const HostBatch& batch) {
    std::vector<Prediction> sums = classify(batch);
    give(*data, batch.rows, sums, sink);
  });
}

std::vector<Prediction> Classifier::classify(const HostBatch& batch) {
  const int classes = predictor_.architecture().classes;
  std::vector<Prediction> sums(static_cast<size_t>(batch.count));
  for (int view = 0; view < passes_.views(); ++view) {
    predictor_.logits(view == 0 ? batch.pixels
                                : symmetric_view(batch.pixels, predictor_.architecture().input_size, view));
    for (int k = 0; k < std::max(1, passes_.dropout); ++k)
      add_pass((passes_.dropout ? predictor_.sample_logits(k) : predictor_.last_logits()).data(), classes,
               classes, passes(), sums);
  }
  return sums;
}

// With a feed: results come when the device has long gone on to later batches.
void Classifier::run_ahead(const std::shared_ptr<const Dataset>& data, const std::vector<int64_t>& rows,
                           const Sink& sink) {
  const int classes = predictor_.architecture().classes, views = passes_.views();
  std::deque<std::vector<int64_t>> waiting;
  auto take = [&](const DeviceFeed::Results& results) {
    std::vector<Prediction> sums(waiting.front().size());
    for (int view = 0; view < views; ++view)
      add_pass(results[0].data() + view * classes, views * classes, classes, passes(), sums);
    give(*data, waiting.front(), sums, sink);
    waiting.pop_front();
  };
  reader_.run(data, rows, [&](const HostBatch& batch) {
    waiting.emplace_back(batch.rows.begin(), batch.rows.begin() + batch.count);
    if (const auto results = push(batch)) take(*results);
  });
  while (!waiting.empty()) take(*predictor_.feed()->pop());
}

// All views of an image are rows of one batch.
std::optional<DeviceFeed::Results> Classifier::push(const HostBatch& batch) {
  if (!passes_.symmetries) return predictor_.feed()->push(batch);
  HostBatch all;
  all.count = batch.count * passes_.views();
  for (int64_t i = 0; i < batch.count; ++i)
    for (int view = 0; view < passes_.views(); ++view) {
      all.samples.push_back(symmetric_view(batch.samples[i], predictor_.architecture().input_size, view));
      all.images.push_back(batch.images[i]);
      all.labels.push_back(batch.labels[i]);
      all.rows.push_back(batch.rows[i]);
    }
  return predictor_.feed()->push(all);
}

}  // namespace gm
