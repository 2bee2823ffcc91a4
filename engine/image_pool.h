// 8-bit images in the memory of a device, where the op `augment` reads them: as many as there is room for
// stay, the others pass through.
#pragma once
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <unordered_map>

#include "engine/batch_source.h"
#include "engine/buffer.h"
#include "kernels/common/parallel.h"

namespace gm {

class ImagePool {
 public:
  /// Batches on their way at the same time. Each has a place of its own for what passes through, so that one
  /// is filled while another is read.
  static constexpr int kSlots = 2;

  explicit ImagePool(Device& device) : device_(device) {}
  /// Room for images that stay, where what comes first stays, and for those of one batch that do not. Before
  /// the first batch.
  void reserve(size_t staying, size_t passing);

  struct Image {
    int64_t offset;  // bytes from the start of view()
    int32_t width, height;
  };
  /// An image that stays; nothing for others. May be called by any thread.
  std::optional<Image> find(int64_t row) const;

  /// Starts the uploads of what is not there yet (neighbours of one image: once) and sets samples' offsets.
  /// The last batch in `slot` must be done with. Throws gm::Error when an image is neither there nor given.
  void bring(int slot, const HostBatch& batch, std::span<AugmentSample> samples);

  /// All images as the op reads them. Moves when a batch needs more room than any before it: then
  /// generation() changes.
  View view() const { return memory_.view(0, {Shape{static_cast<int64_t>(memory_.bytes())}, DType::u8}); }
  int64_t generation() const { return generation_; }
  size_t bytes() const { return memory_.bytes(); }

 private:
  void grow(size_t passing);
  // Copies these images of a batch one after the other, on several threads where they are many.
  void pack(const HostBatch& batch, const std::vector<int64_t>& list, char* to);

  Device& device_;
  // Images that stay, then a part for each slot. Whole words: kernels read four bytes at once.
  Buffer memory_;
  size_t kept_ = 0, used_ = 0, passing_ = 0;
  int64_t generation_ = 0;
  HostBuffer staging_[kSlots];
  std::unique_ptr<ThreadPool> copiers_;  // from the first large batch on
  mutable std::mutex mutex_;             // guards images_
  std::unordered_map<int64_t, Image> images_;
};

}  // namespace gm
