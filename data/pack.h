// Any dataset as one HDF5 file in the Galaxy10 layout.
#pragma once
#include <cstdint>
#include <functional>
#include <string>

#include "data/dataset.h"

namespace gm {

struct PackOptions {
  int size = 0;     ///< side of the stored images in px; 0: as they are, which must be alike
  int workers = 0;  ///< threads that read and resize; 0: one per processor
  std::function<void(int64_t done)> progress = {};  ///< called now and then, from the calling thread
};

/// Writes images (N, H, W, 3) uint8, ans (N) int32 (-1: unlabelled), id_str (N) and, where any is known, ra
/// and dec (N) float64 with NaN for the rest and soft_labels (N, classes) float32 with zeros for the rest;
/// class names as the attribute class_names of images. Images are resized by area average or bilinearly.
/// Chunks hold whole images, about 128 KiB of them, with deflate 4: random access then decompresses little
/// more than the image it wants. Streams; memory stays below about 64 MiB plus a few images. Written under a
/// temporary name and renamed. Throws gm::Error: an image that cannot be read, images of different sizes
/// without a size given, no room; then nothing is left behind.
void pack_hdf5(const Dataset& data, const std::string& path, const PackOptions& options = {});

}  // namespace gm
