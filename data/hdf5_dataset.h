// Galaxy10-layout HDF5 files, streamed: never whole in memory.
#pragma once
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "data/dataset.h"
#include "data/hdf5_util.h"
#include "data/soft_labels.h"

namespace gm {

/// `images` (N, H, W, 3) uint8, `ans` (N) any integer type; optional: `ra`, `dec` (N) degrees, `id_str` (N)
/// text (else the row number is the id), `soft_labels` (N, classes) numbers of which each row sums to 1 and
/// the largest is that of `ans`, and the class names as a text attribute `class_names` of `images` or of the
/// file. Without names, ten classes are Galaxy10 DECals and any other number are "0", "1", ...
///
/// Reading: HDF5 decompresses whole chunks. Files whose chunks hold up to kCachedRows images keep the last
/// few decompressed chunks in memory (at most kCacheBytes, or one chunk that is larger). Files whose chunks
/// span more images, as h5py makes them by default (the public Galaxy10_DECals.h5 needs hundreds of MB
/// decompressed for one image), are unpacked piece by piece, on first touch, to an unnamed scratch file in
/// $TMPDIR or /var/tmp, which is as large as the pixels; random access then costs one read. release()
/// closes the file and removes the scratch file; a file that cannot be opened again is a MachineError.
///
/// Throws gm::Error: not HDF5, truncated, `images` or `ans` missing, of wrong rank, type or length, a label
/// below -1 or not below the number of given classes, text that is not UTF-8, no room for the scratch file.
class Hdf5Dataset : public Dataset {
 public:
  static constexpr int64_t kCachedRows = 8;
  static constexpr size_t kCacheBytes = size_t{64} << 20;

  explicit Hdf5Dataset(const std::string& path, const OpenOptions& options = {});
  ~Hdf5Dataset() override;
  Hdf5Dataset(const Hdf5Dataset&) = delete;
  Hdf5Dataset& operator=(const Hdf5Dataset&) = delete;

  int64_t size() const override { return static_cast<int64_t>(labels_.size()); }
  const std::vector<std::string>& classes() const override { return classes_; }
  int label(int64_t i) const override { return labels_[i]; }
  bool soft() const override { return !soft_.empty(); }
  std::span<const float> soft_label(int64_t i) const override { return soft_.row(i); }
  std::string id(int64_t i) const override { return ids_.empty() ? std::to_string(i) : ids_[i]; }
  bool sky(int64_t i, double& ra, double& dec) const override { return sky_.at(i, ra, dec); }
  Image read(int64_t i) const override;
  size_t image_bytes() const override { return shape_[1] * shape_[2] * 3; }
  size_t buffer_bytes() const override;
  void release() const override;
  const std::string& path() const override { return path_; }
  /// Pixels of every image of the file.
  int width() const { return static_cast<int>(shape_[2]); }
  int height() const { return static_cast<int>(shape_[1]); }

 private:
  using Pixels = std::shared_ptr<const std::vector<uint8_t>>;
  struct Block {
    int64_t index;
    Pixels pixels;
  };
  struct Scratch;

  void open() const;
  void reopen() const;
  std::vector<int64_t> read_whole_numbers(hid_t column, const std::string& name) const;
  void read_labels(const OpenOptions& options);
  void read_soft_labels(const std::vector<int>& to_given);
  void read_ids();
  std::vector<double> read_column(const char* name) const;
  /// Image rows [row, row+rows), lines [y, y+lines): (rows, lines, W, 3) into `out`.
  void read_pixels(int64_t row, int64_t rows, int64_t y, int64_t lines, uint8_t* out) const;
  Pixels block(int64_t index) const;
  void unpack_block(int64_t index) const;

  std::string path_;
  mutable h5::Handle file_, images_;          // guarded by h5::Lock
  std::vector<hsize_t> shape_;                // (N, H, W, 3)
  int64_t block_rows_ = 1, block_lines_ = 1;  // a chunk's extent in images and in image lines
  bool unwritten_ = false;                    // some pixels were never written: HDF5 reads them as zeros
  std::vector<std::string> classes_, ids_;
  std::vector<int> labels_;
  SoftLabels soft_;
  SkyColumns sky_;

  mutable std::mutex mutex_;                                              // guards what follows
  mutable std::list<Block> recent_;                                       // most recent first
  mutable std::unordered_map<int64_t, std::list<Block>::iterator> kept_;  // of recent_, by index
  mutable std::vector<char> unpacked_;  // per block: is it in the scratch file?
  mutable std::shared_ptr<const Scratch> scratch_;
};

}  // namespace gm
