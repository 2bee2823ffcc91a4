#include "data/file_names.h"

#include <cctype>
#include <filesystem>

namespace gm {

std::string lower_extension(const std::string& path) {
  std::string ext = std::filesystem::path(path).extension().string();
  for (char& c : ext) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return ext;
}

bool is_image_name(const std::string& path) {
  const std::string ext = lower_extension(path);
  return ext == ".jpg" || ext == ".jpeg" || ext == ".png";
}

bool is_hdf5_name(const std::string& path) {
  const std::string ext = lower_extension(path);
  return ext == ".h5" || ext == ".hdf5";
}

}  // namespace gm
