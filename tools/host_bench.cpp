#include "tools/host_bench.h"

#include <algorithm>

#include "data/transform.h"
#include "engine/device_feed.h"
#include "kernels/common/clock.h"
#include "kernels/common/philox.h"
#include "layers/network.h"

namespace gm {

namespace {

HostBatch images(int64_t count, int side, int input_size, uint32_t first) {
  const AugmentSample sample =
      Transform(TransformConfig::none(input_size), false).sample(side, side, 0, 0, 0);
  HostBatch batch;
  batch.count = count;
  for (uint32_t i = 0; i < count; ++i) {
    PhiloxStream rng(1, RngUse::sample, first + i);
    std::vector<uint8_t> pixels(static_cast<size_t>(side) * side * 3);
    for (size_t at = 0; at < pixels.size(); at += sizeof(uint32_t)) {
      const auto four = static_cast<uint32_t>(rng.next());
      std::copy_n(reinterpret_cast<const uint8_t*>(&four), std::min(sizeof four, pixels.size() - at),
                  pixels.begin() + static_cast<int64_t>(at));
    }
    batch.images.push_back(std::make_shared<const std::vector<uint8_t>>(std::move(pixels)));
    batch.samples.push_back(sample);
    batch.rows.push_back(first + i);
  }
  batch.labels.assign(static_cast<size_t>(count), -1);
  return batch;
}

// Bytes a second, of several uploads in a row; the best of a few rounds.
double time_uploads(Device& device, size_t bytes) {
  const HostBuffer host(device, bytes);
  const Buffer there(device, bytes);
  std::fill_n(host.data(), bytes, char{1});
  const std::unique_ptr<Event> done = device.make_event();
  double best = 0;
  for (int round = 0; round < 6; ++round) {
    constexpr int kUploads = 4;
    const double start = seconds_now();
    for (int i = 0; i < kUploads; ++i) device.start_upload(there.data(), host.data(), bytes);
    device.record(*done, Stream::uploads);
    device.wait(*done);
    best = std::max(best, kUploads * static_cast<double>(bytes) / (seconds_now() - start));
  }
  return best;
}

}  // namespace

HostBench time_from_host(Device& device, const Architecture& a, const ModelBenchOptions& o, int side) {
  ParameterTable table;
  const NetworkGraph plain = build_network(
      a, table,
      {.batch = o.batch, .dtype = o.bf16() ? DType::bf16 : DType::f32, .augmented = true, .loss = false});
  Weights weights(device, table, false, false);
  weights.initialize(table, 1);
  FoldedNetwork folded(plain, o.fusions, device.backend());
  Weights folded_weights(device, folded.table, o.bf16(), false);
  folded.refresh(table, weights, folded_weights);
  const ValueId logits = folded.net.logits;
  Session session(device, folded.net.graph, folded_weights, {.keep = {logits}});
  ImagePool pool(device);
  DeviceFeed feed(device, session, pool,
                  {.pixels = folded.net.pixels,
                   .augment = folded.net.augment.set("colour", 0),
                   .results = {logits},
                   .work = {[&](const View&) { session.forward(); }}});
  const auto per_batch = static_cast<size_t>(o.batch) * static_cast<size_t>(side) * side * 3;
  pool.reserve(0, per_batch);
  const HostBatch batches[] = {images(o.batch, side, a.input_size, 0),
                               images(o.batch, side, a.input_size, static_cast<uint32_t>(o.batch))};
  int64_t pushed = 0;
  auto push = [&] { feed.push(batches[pushed++ % 2]); };
  auto drain = [&] {
    while (feed.pop()) continue;
  };
  // Each place in the feed runs its step once call by call and is captured at the second.
  for (int i = 0; i < 3 * ImagePool::kSlots; ++i) push();
  drain();
  pushed = 0;
  const double start = seconds_now();
  do push();
  while (seconds_now() - start < o.seconds);
  drain();
  const double seconds = seconds_now() - start;
  HostBench bench;
  bench.images_per_second = static_cast<double>(pushed * o.batch) / seconds;
  bench.bytes_per_second = static_cast<double>(pushed) * static_cast<double>(per_batch) / seconds;
  bench.upload_per_second = time_uploads(device, per_batch);
  bench.captured = feed.captured();
  return bench;
}

}  // namespace gm
