// Batches ahead of time: worker threads decode and augment while the network computes.
#pragma once
#include <condition_variable>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "data/dataset.h"
#include "data/transform.h"
#include "engine/image_pool.h"

namespace gm {

/// Decoded images in RAM up to a budget: decoding a JPEG costs more than augmenting it. What came first
/// stays; under random order that beats any eviction rule once the set is larger than the budget.
/// Thread-safe; one cache may serve the training and the validation loader of a dataset.
class ImageCache {
 public:
  static constexpr size_t kDefaultBytes = size_t{3} << 29;  // 1.5 GiB

  explicit ImageCache(std::shared_ptr<const Dataset> data, size_t budget_bytes = kDefaultBytes)
      : data_(std::move(data)), budget_(budget_bytes) {}
  /// The cached image, or a fresh one that is kept if it still fits. Throws what Dataset::read throws.
  std::shared_ptr<const Image> read(int64_t row);
  const std::shared_ptr<const Dataset>& data() const { return data_; }
  size_t bytes() const;
  /// What bytes() grows to when `images` different ones are asked for; where their sizes are not known, a few
  /// are read.
  size_t most_bytes(size_t images) const;
  /// Bytes of one image; where sizes are not known, the mean of a few that are read for it.
  double image_bytes() const;

 private:
  std::shared_ptr<const Dataset> data_;
  size_t budget_, used_ = 0;
  mutable std::mutex mutex_;
  std::unordered_map<int64_t, std::shared_ptr<const Image>> images_;
};

struct LoaderConfig {
  int64_t batch = 32;
  int64_t group = 1;  ///< batches that share an update of the weights
  TransformConfig transform;
  /// Training: shuffled per epoch, augmented, the last partial batch or group dropped. Evaluation: in the
  /// given order, nothing random, the last batch padded with zeros.
  bool training = false;
  bool augment = true;  ///< training: false for images as evaluation sees them
  uint64_t seed = 0;
  int workers = 0;                                 ///< threads; 0: one per processor, at most 16
  int prefetch = 4;                                ///< batches prepared ahead, at least 1
  size_t cache_bytes = ImageCache::kDefaultBytes;  ///< of a cache of this loader's own; 0: none
  std::shared_ptr<ImageCache> cache;               ///< shared cache, instead of cache_bytes
  /// Set where the device augments: batches carry samples and images, the latter only when the pool does not
  /// keep them. Must outlive the loader.
  const ImagePool* device_images = nullptr;
  /// Evaluation only: an unreadable image is reported to on_bad(row, message) by next(), in order, and left
  /// out of its batch (whose count is then smaller), instead of ending the epoch with an error. A
  /// MachineError is no fault of an image and ends it all the same.
  bool skip_bad = false;
  std::function<void(int64_t row, const std::string& message)> on_bad;
};

/// Makes room on a device for a data set: for `images` of its images where two fifths of the free memory hold
/// them, else for as many as these hold and, beside them, for those of a batch.
void reserve_images(ImagePool& pool, size_t free_bytes, const ImageCache& cache, size_t images,
                    int64_t batch);

/// The rows `rows` of a dataset as batches. Contents and order depend on the data, the config's seed and the
/// epoch alone, never on the number of workers or on where in the epoch a resumed run starts.
/// Errors: the constructor throws gm::Error on a config out of range, on no rows, and in training on
/// unlabelled rows and on fewer rows than one group of training batches; next() throws the first unreadable
/// image of the batch, naming its file. After that only start_epoch or destruction may follow.
class Loader : public BatchSource {
 public:
  Loader(std::shared_ptr<const Dataset> data, std::vector<int64_t> rows, LoaderConfig config);
  ~Loader() override;
  Loader(const Loader&) = delete;
  Loader& operator=(const Loader&) = delete;

  int64_t samples() const override { return static_cast<int64_t>(rows_.size()); }
  int64_t batches() const override;
  void start_epoch(int64_t epoch, int64_t first_batch) override;
  bool next(HostBatch& batch) override;
  double wait_seconds() const override { return wait_seconds_; }
  /// Memory of the batches prepared ahead and the one that the consumer holds.
  size_t batch_bytes() const;

 private:
  /// One batch in the making.
  struct Slot {
    HostBatch batch;
    std::vector<std::string> errors;  // per sample, empty when it went well
    int64_t missing = 0;              // samples not finished yet
    std::exception_ptr broken;        // the machine failed, not a sample
  };

  void work();
  void fill_sample(Slot& slot, int64_t index, int64_t in_batch);
  void prepare_slot(int64_t batch);
  void stop_workers_in_epoch(std::unique_lock<std::mutex>& lock);
  void break_off(Slot& slot);
  void drop_bad(Slot& slot);

  std::shared_ptr<const Dataset> data_;
  std::vector<int64_t> rows_, order_;  // order_: rows_ in this epoch's order
  LoaderConfig config_;
  Transform transform_;
  std::shared_ptr<ImageCache> cache_;
  std::vector<Slot> slots_;  // batch b lives in slot b % slots_.size()
  double wait_seconds_ = 0;

  std::mutex mutex_;  // guards what follows, and Slot::missing
  std::condition_variable work_ready_, batch_ready_, idle_;
  int64_t epoch_ = 0, next_sample_ = 0, end_sample_ = 0;  // samples to hand out: [next_sample_, end_sample_)
  int64_t next_batch_ = 0;                                // the batch that next() returns
  int busy_ = 0;
  bool stop_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace gm
