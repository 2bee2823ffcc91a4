// What the names of files say of their kind. Extensions count in either case.
#pragma once
#include <string>

namespace gm {

/// ".jpg" of "a/B.JPG".
std::string lower_extension(const std::string& path);
/// Of an image that read_image takes: .jpg, .jpeg, .png.
bool is_image_name(const std::string& path);
/// .h5 or .hdf5.
bool is_hdf5_name(const std::string& path);

}  // namespace gm
