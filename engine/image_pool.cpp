#include "engine/image_pool.h"

#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include <algorithm>
#include <cstring>

namespace gm {

namespace {
// One thread copies some 5 to 10 GB/s, several as fast as a card takes them; below a megabyte waking them
// costs more.
constexpr int kCopiers = 16;
constexpr int64_t kManyBytes = 1 << 20;

// memcpy past the caches: what a card fetches next need not be read from memory before it is overwritten, nor
// push anything out. 1.5 to 2.1 times as fast as memcpy (three rounds of two threads with 424 px images).
void copy_to_staging(char* to, const uint8_t* from, size_t bytes) {
#ifdef __SSE2__
  const size_t head =
      std::min(bytes, static_cast<size_t>(-reinterpret_cast<uintptr_t>(to) % sizeof(__m128i)));
  std::memcpy(to, from, head);
  size_t at = head;
  for (; at + sizeof(__m128i) <= bytes; at += sizeof(__m128i))
    _mm_stream_si128(reinterpret_cast<__m128i*>(to + at),
                     _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + at)));
  std::memcpy(to + at, from + at, bytes - at);
  _mm_sfence();  // before whoever starts the upload hears that the copy is done
#else
  std::memcpy(to, from, bytes);
#endif
}
}  // namespace

void ImagePool::reserve(size_t staying, size_t passing) {
  GM_CHECK(used_ == 0, "room for images is made before the first batch");
  kept_ = aligned_bytes(staying);
  passing_ = aligned_bytes(passing);
  memory_ = {};  // freed before the new one is asked for
  memory_ = Buffer(device_, kept_ + kSlots * passing_);
  ++generation_;
}

std::optional<ImagePool::Image> ImagePool::find(int64_t row) const {
  std::lock_guard<std::mutex> lock(mutex_);
  const auto found = images_.find(row);
  if (found == images_.end()) return std::nullopt;
  return found->second;
}

void ImagePool::grow(size_t passing) {
  device_.synchronize();  // kernels of the batch before may still read; their uploads are done by then
  passing_ = aligned_bytes(passing);
  Buffer larger(device_, kept_ + kSlots * passing_);
  if (used_) device_.copy(larger.data(), memory_.data(), used_);
  device_.synchronize();
  memory_ = std::move(larger);
  ++generation_;
}

void ImagePool::pack(const HostBatch& batch, const std::vector<int64_t>& list, char* to) {
  std::vector<char*> places;
  char* end = to;
  for (int64_t i : list) {
    places.push_back(end);
    end += batch.images[i]->size();
  }
  auto copy = [&](int64_t i, int) {
    const auto& image = *batch.images[list[static_cast<size_t>(i)]];
    copy_to_staging(places[static_cast<size_t>(i)], image.data(), image.size());
  };
  const auto count = static_cast<int64_t>(list.size());
  if (end - to < kManyBytes) {
    for (int64_t i = 0; i < count; ++i) copy(i, 0);
    return;
  }
  if (!copiers_) copiers_ = std::make_unique<ThreadPool>(std::min(kCopiers, available_processors()));
  copiers_->run(count, copy);
}

void ImagePool::bring(int slot, const HostBatch& batch, std::span<AugmentSample> samples) {
  // Where everything goes: first what will stay, then what passes through.
  std::vector<int64_t> staying, passing, again;
  size_t staying_bytes = 0, passing_bytes = 0;
  for (int64_t i = 0; i < batch.count; ++i) {
    AugmentSample& s = samples[i];
    if (const auto there = find(batch.rows[i])) {
      s.offset = there->offset;
      continue;
    }
    GM_CHECK(batch.images[i], "image of row " + std::to_string(batch.rows[i]) + " is not in the batch");
    const size_t bytes = batch.images[i]->size();
    GM_CHECK(bytes == static_cast<size_t>(s.width) * s.height * 3, "image and sample have different sizes");
    if (used_ + staying_bytes + bytes <= kept_) {
      s.offset = static_cast<int64_t>(used_ + staying_bytes);
      staying_bytes += bytes;
      staying.push_back(i);
      std::lock_guard<std::mutex> lock(mutex_);
      images_[batch.rows[i]] = {s.offset, s.width, s.height};
    } else if (!passing.empty() && batch.images[i] == batch.images[passing.back()]) {
      s.offset = samples[passing.back()].offset;
      again.push_back(i);
    } else {
      s.offset = static_cast<int64_t>(passing_bytes);  // the place of the slot is added below
      passing_bytes += bytes;
      passing.push_back(i);
    }
  }
  // Sets of one image size need this once; others a few times, hence more than was asked for.
  if (passing_bytes > passing_) grow(passing_ ? passing_bytes + passing_bytes / 4 : passing_bytes);
  HostBuffer& staging = staging_[slot];
  if (staging.bytes() < staying_bytes + passing_bytes) {
    staging = {};
    staging = HostBuffer(device_, aligned_bytes(staying_bytes + passing_bytes));
  }
  char* memory = static_cast<char*>(memory_.data());
  if (staying_bytes) {
    pack(batch, staying, staging.data());
    device_.start_upload(memory + used_, staging.data(), staying_bytes);
    used_ += staying_bytes;
  }
  if (passing_bytes) {
    const size_t place = kept_ + static_cast<size_t>(slot) * passing_;
    for (const auto& list : {passing, again})
      for (int64_t i : list) samples[i].offset += static_cast<int64_t>(place);
    pack(batch, passing, staging.data() + staying_bytes);
    device_.start_upload(memory + place, staging.data() + staying_bytes, passing_bytes);
  }
}

}  // namespace gm
