#include "data/loader.h"

#include <algorithm>
#include <cstring>
#include <new>
#include <system_error>

#include "data/parallel.h"
#include "kernels/common/ceil_div.h"
#include "kernels/common/clock.h"
#include "kernels/common/error.h"
#include "kernels/common/shuffle.h"

namespace gm {

std::shared_ptr<const Image> ImageCache::read(int64_t row) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    auto found = images_.find(row);
    if (found != images_.end()) return found->second;
  }
  auto image = std::make_shared<const Image>(data_->read(row));
  std::lock_guard<std::mutex> lock(mutex_);
  if (used_ + image->rgb.size() <= budget_ && images_.emplace(row, image).second) used_ += image->rgb.size();
  return image;
}

size_t ImageCache::bytes() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return used_;
}

double ImageCache::image_bytes() const {
  if (const size_t known = data_->image_bytes()) return static_cast<double>(known);
  const int64_t rows = data_->size(), samples = std::min<int64_t>(16, rows);
  double sum = 0;
  int64_t read = 0;
  for (int64_t i = 0; i < samples; ++i) try {
      sum += static_cast<double>(data_->read(i * rows / samples).rgb.size());
      ++read;
    } catch (const Error&) {  // whoever needs that image will say so
    }
  return read ? sum / static_cast<double>(read) : 0;
}

size_t ImageCache::most_bytes(size_t images) const {
  if (budget_ == 0) return 0;
  return static_cast<size_t>(
      std::min(static_cast<double>(budget_), image_bytes() * static_cast<double>(images)));
}

void reserve_images(ImagePool& pool, size_t free_bytes, const ImageCache& cache, size_t images,
                    int64_t batch) {
  // A pool that grows lies in memory twice for a moment, and batches of pictures of many sizes hold more than
  // the mean of a few pictures says.
  const double each = cache.image_bytes(), all = each * static_cast<double>(images),
               passing = each * static_cast<double>(batch),
               most = 0.4 * std::max(0., static_cast<double>(free_bytes) - 10 * passing);
  const bool fit = all <= most;
  pool.reserve(static_cast<size_t>(fit ? all : most), fit ? 0 : static_cast<size_t>(1.5 * passing));
}

size_t Loader::batch_bytes() const {
  const size_t side = static_cast<size_t>(config_.transform.size);
  const size_t each = config_.device_images
                          ? sizeof(AugmentSample) + static_cast<size_t>(cache_->image_bytes())
                          : side * side * 3 * sizeof(float);
  return (slots_.size() + 1) * static_cast<size_t>(config_.batch) * each;
}

Loader::Loader(std::shared_ptr<const Dataset> data, std::vector<int64_t> rows, LoaderConfig config)
    : data_(std::move(data)),
      rows_(std::move(rows)),
      config_(std::move(config)),
      transform_(config_.transform, config_.training && config_.augment),
      cache_(config_.cache) {
  if (config_.batch < 1 || config_.group < 1) fail("data: batch and group must be at least 1");
  if (config_.prefetch < 1) fail("data: prefetch must be at least 1");
  if (config_.workers < 0 || config_.workers > 256) fail("data: workers must be 0..256");
  if (config_.skip_bad && config_.training) fail("data: skip_bad is for evaluation only");
  if (rows_.empty()) fail(data_->path() + ": no images to load");
  for (int64_t row : rows_)
    if (row < 0 || row >= data_->size()) fail(data_->path() + ": no row " + std::to_string(row));
  if (config_.training)
    for (int64_t row : rows_)
      if (data_->label(row) < 0) fail(data_->path() + ": " + data_->id(row) + " has no label to train on");
  if (config_.training && batches() == 0)
    fail(data_->path() + ": " + std::to_string(samples()) + " training images are fewer than one batch of " +
         std::to_string(config_.batch * config_.group));
  if (!cache_) cache_ = std::make_shared<ImageCache>(data_, config_.cache_bytes);
  slots_.resize(static_cast<size_t>(std::min<int64_t>(config_.prefetch, batches())));
  int workers = config_.workers;
  if (workers == 0) workers = default_workers();
  try {
    for (int i = 0; i < workers; ++i) threads_.emplace_back([this] { work(); });
  } catch (const std::system_error& e) {  // a limit on processes: fewer will do
    if (threads_.empty()) fail(std::string("cannot start a thread that reads images: ") + e.what());
  }
}

Loader::~Loader() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stop_ = true;
  }
  work_ready_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

int64_t Loader::batches() const {
  if (config_.training) return samples() / (config_.batch * config_.group) * config_.group;
  return ceil_div(samples(), config_.batch);
}

void Loader::stop_workers_in_epoch(std::unique_lock<std::mutex>& lock) {
  end_sample_ = next_sample_;
  idle_.wait(lock, [this] { return busy_ == 0; });
}

void Loader::start_epoch(int64_t epoch, int64_t first_batch) {
  if (epoch < 0 || first_batch < 0 || first_batch > batches())
    fail("data: no batch " + std::to_string(first_batch) + " in epoch " + std::to_string(epoch));
  std::unique_lock<std::mutex> lock(mutex_);
  stop_workers_in_epoch(lock);
  order_ = rows_;
  if (config_.training) {
    PhiloxStream rng(config_.seed, RngUse::shuffle, static_cast<uint32_t>(epoch));
    shuffle(order_, rng);
  }
  epoch_ = epoch;
  next_batch_ = first_batch;
  wait_seconds_ = 0;
  next_sample_ = end_sample_ = first_batch * config_.batch;
  for (int64_t b = first_batch; b < first_batch + static_cast<int64_t>(slots_.size()); ++b) prepare_slot(b);
  work_ready_.notify_all();
}

/// Makes the slot of `batch` ready to be filled and releases its samples to the workers.
void Loader::prepare_slot(int64_t batch) {
  if (batch >= batches()) return;
  Slot& slot = slots_[batch % slots_.size()];
  int64_t first = batch * config_.batch, count = std::min(config_.batch, samples() - first);
  int64_t side = config_.transform.size, pixels = side * side * 3;
  slot.batch.count = count;
  if (config_.device_images) {
    slot.batch.samples.assign(config_.batch, {});
    slot.batch.images.assign(config_.batch, nullptr);
  } else {
    slot.batch.pixels.resize(config_.batch * pixels);
    std::fill(slot.batch.pixels.begin() + count * pixels, slot.batch.pixels.end(), 0.0f);
  }
  slot.batch.labels.assign(config_.batch, 0);
  slot.batch.soft_labels.assign(data_->soft() ? config_.batch * data_->classes().size() : 0, 0.f);
  slot.batch.rows.assign(config_.batch, 0);
  slot.errors.assign(count, "");
  slot.broken = nullptr;
  slot.missing = count;
  end_sample_ = first + count;
}

void Loader::work() {
  std::unique_lock<std::mutex> lock(mutex_);
  while (true) {
    work_ready_.wait(lock, [this] { return stop_ || next_sample_ < end_sample_; });
    if (stop_) return;
    int64_t index = next_sample_++;
    Slot& slot = slots_[index / config_.batch % slots_.size()];
    ++busy_;
    lock.unlock();
    fill_sample(slot, index, index % config_.batch);
    lock.lock();
    if (--slot.missing == 0) batch_ready_.notify_one();
    if (--busy_ == 0) idle_.notify_one();
  }
}

void Loader::fill_sample(Slot& slot, int64_t index, int64_t in_batch) {
  int64_t row = order_[index], side = config_.transform.size;
  slot.batch.rows[in_batch] = row;
  slot.batch.labels[in_batch] = data_->label(row);
  if (data_->soft())
    std::ranges::copy(data_->soft_label(row), &slot.batch.soft_labels[in_batch * data_->classes().size()]);
  try {
    if (config_.device_images) {
      auto there = config_.device_images->find(row);
      if (!there) {
        const auto image = cache_->read(row);
        slot.batch.images[in_batch] = {image, &image->rgb};
        there = {0, image->width, image->height};
      }
      slot.batch.samples[in_batch] =
          transform_.sample(there->width, there->height, config_.seed, static_cast<uint32_t>(epoch_),
                            static_cast<uint32_t>(row));
      return;
    }
    std::shared_ptr<const Image> image = cache_->read(row);
    transform_.apply(*image, config_.seed, static_cast<uint32_t>(epoch_), static_cast<uint32_t>(row),
                     slot.batch.pixels.data() + in_batch * side * side * 3);
  } catch (const MachineError&) {
    break_off(slot);
  } catch (const std::bad_alloc&) {
    break_off(slot);
  } catch (const std::exception& error) {
    slot.errors[in_batch] = error.what();
    if (slot.errors[in_batch].empty()) slot.errors[in_batch] = "unknown error";
  }
}

void Loader::break_off(Slot& slot) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (!slot.broken) slot.broken = std::current_exception();
}

/// Reports the samples that failed and closes the gaps they leave.
void Loader::drop_bad(Slot& slot) {
  int64_t kept = 0, side = config_.transform.size, pixels = side * side * 3;
  float* data = slot.batch.pixels.data();
  const size_t classes = data_->soft() ? data_->classes().size() : 0;
  for (int64_t i = 0; i < slot.batch.count; ++i) {
    if (!slot.errors[i].empty()) {
      if (config_.on_bad) config_.on_bad(slot.batch.rows[i], slot.errors[i]);
      continue;
    }
    if (kept < i) {
      if (config_.device_images) {
        slot.batch.samples[kept] = slot.batch.samples[i];
        slot.batch.images[kept] = std::move(slot.batch.images[i]);
      } else {
        std::memcpy(data + kept * pixels, data + i * pixels, pixels * sizeof(float));
      }
      slot.batch.labels[kept] = slot.batch.labels[i];
      if (classes)
        std::copy_n(&slot.batch.soft_labels[i * classes], classes, &slot.batch.soft_labels[kept * classes]);
      slot.batch.rows[kept] = slot.batch.rows[i];
    }
    ++kept;
  }
  if (!config_.device_images) std::fill(data + kept * pixels, data + slot.batch.count * pixels, 0.0f);
  std::fill(slot.batch.labels.begin() + kept, slot.batch.labels.end(), 0);
  std::fill(slot.batch.rows.begin() + kept, slot.batch.rows.end(), 0);
  slot.batch.count = kept;
}

bool Loader::next(HostBatch& batch) {
  while (next_batch_ < batches()) {
    Slot& slot = slots_[next_batch_ % slots_.size()];
    std::unique_lock<std::mutex> lock(mutex_);
    if (order_.empty()) fail("data: next() before start_epoch()");
    const double from = seconds_now();
    batch_ready_.wait(lock, [&] { return slot.missing == 0; });
    wait_seconds_ += seconds_now() - from;
    lock.unlock();
    if (slot.broken) std::rethrow_exception(slot.broken);
    auto bad = std::find_if(slot.errors.begin(), slot.errors.end(), [](auto& e) { return !e.empty(); });
    if (bad != slot.errors.end()) {
      if (!config_.skip_bad) fail(*bad);
      drop_bad(slot);
    }
    std::swap(batch, slot.batch);  // the consumer's old buffers are filled next
    lock.lock();
    prepare_slot(next_batch_++ + static_cast<int64_t>(slots_.size()));
    lock.unlock();
    work_ready_.notify_all();
    if (batch.count > 0) return true;
  }
  return false;
}

}  // namespace gm
