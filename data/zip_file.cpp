#include "data/zip_file.h"

#include <minizip/unzip.h>

#include <algorithm>
#include <fstream>
#include <memory>

#include "kernels/common/error.h"

namespace gm {

bool is_zip(const std::string& path) {
  char magic[4] = {};
  std::ifstream in(path, std::ios::binary);
  return in.read(magic, 4) && std::string(magic, 4) == "PK\3\4";
}

std::string read_zip_member(const std::string& path, const std::string& member) {
  const std::unique_ptr<void, decltype(&unzClose)> archive(unzOpen64(path.c_str()), unzClose);
  if (!archive) fail(path + ": cannot be opened, or the archive is truncated");
  unz_file_info64 info{};
  const int found = unzLocateFile(archive.get(), member.c_str(), 1);
  if (found == UNZ_END_OF_LIST_OF_FILE) fail(path + ": an archive without " + member);
  if (found != UNZ_OK) fail(path + ": the archive is truncated or corrupt");
  const std::string where = path + ": " + member;
  if (unzGetCurrentFileInfo64(archive.get(), &info, nullptr, 0, nullptr, 0, nullptr, 0) != UNZ_OK ||
      unzOpenCurrentFile(archive.get()) != UNZ_OK)
    fail(where + " cannot be read: corrupt, or neither stored nor deflated");
  // Deflate cannot shrink by more than 1032: what claims more would only ask for memory.
  if (info.uncompressed_size / 1032 > info.compressed_size) fail(where + ": wrong size");
  std::string bytes(info.uncompressed_size, '\0');
  size_t at = 0;
  while (at < bytes.size()) {
    const auto part = static_cast<unsigned>(std::min<size_t>(bytes.size() - at, size_t{1} << 24));
    const int got = unzReadCurrentFile(archive.get(), bytes.data() + at, part);
    if (got <= 0) fail(where + " cannot be read: the archive is truncated or corrupt");
    at += static_cast<size_t>(got);
  }
  if (unzCloseCurrentFile(archive.get()) != UNZ_OK) fail(where + ": wrong check sum");
  return bytes;
}

}  // namespace gm
