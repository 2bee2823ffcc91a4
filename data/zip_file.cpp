#include "data/zip_file.h"

#include <zlib.h>

#include <algorithm>
#include <cstdint>
#include <fstream>

#include "kernels/common/error.h"

namespace gm {

namespace {

constexpr size_t kEndSize = 22, kEntrySize = 46, kLocalSize = 30;

uint32_t number(const std::string& bytes, size_t at, int size) {
  uint32_t value = 0;
  for (int i = size; i-- > 0;) value = value << 8 | static_cast<unsigned char>(bytes[at + i]);
  return value;
}

struct Member {
  uint32_t method, check_sum, packed, size, at;  // at: of its local header
};

class Archive {
 public:
  explicit Archive(const std::string& path) : path_(path), in_(path, std::ios::binary | std::ios::ate) {
    if (!in_) fail(path + ": cannot open");
    size_ = static_cast<uint64_t>(in_.tellg());
  }

  Member find(const std::string& name) {
    const std::string directory = read_directory();
    for (size_t at = 0; at + kEntrySize <= directory.size();) {
      if (directory.compare(at, 4, "PK\1\2") != 0) fail(path_ + ": the archive's directory is corrupt");
      const size_t length = number(directory, at + 28, 2);
      if (directory.compare(at + kEntrySize, length, name) == 0 && length == name.size())
        return {number(directory, at + 10, 2), number(directory, at + 16, 4), number(directory, at + 20, 4),
                number(directory, at + 24, 4), number(directory, at + 42, 4)};
      at += kEntrySize + length + number(directory, at + 30, 2) + number(directory, at + 32, 2);
    }
    fail(path_ + ": an archive without " + name);
  }

  std::string content(const Member& m) {
    // Name and extra field may be longer here than in the directory.
    const std::string header = read(m.at, kLocalSize);
    if (!header.starts_with("PK\3\4")) fail(path_ + ": the archive is corrupt");
    return read(m.at + kLocalSize + number(header, 26, 2) + number(header, 28, 2), m.packed);
  }

 private:
  std::string read(uint64_t at, uint64_t count) {
    if (at > size_ || count > size_ - at) fail(path_ + ": the archive is truncated");
    std::string bytes(count, '\0');
    in_.seekg(static_cast<std::streamoff>(at));
    if (!in_.read(bytes.data(), static_cast<std::streamsize>(count))) fail(path_ + ": cannot read");
    return bytes;
  }

  // It stands at the end, before a comment of at most 64 KiB.
  std::string read_directory() {
    const uint64_t tail = std::min<uint64_t>(size_, kEndSize + 0xFFFF);
    const std::string end = read(size_ - tail, tail);
    const size_t at = end.rfind("PK\5\6");
    if (at == std::string::npos || at + kEndSize > end.size()) fail(path_ + ": the archive is truncated");
    return read(number(end, at + 16, 4), number(end, at + 12, 4));
  }

  std::string path_;
  std::ifstream in_;
  uint64_t size_ = 0;
};

// zlib without its header; the size is known. False for data that are no such thing.
bool inflate_raw(const std::string& packed, std::string& out) {
  z_stream z{};
  if (inflateInit2(&z, -MAX_WBITS) != Z_OK) return false;
  z.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(packed.data()));
  z.avail_in = static_cast<uInt>(packed.size());
  z.next_out = reinterpret_cast<Bytef*>(out.data());
  z.avail_out = static_cast<uInt>(out.size());
  const int status = inflate(&z, Z_FINISH);
  inflateEnd(&z);
  return status == Z_STREAM_END && z.total_out == out.size();
}

}  // namespace

bool is_zip(const std::string& path) {
  char magic[4] = {};
  std::ifstream in(path, std::ios::binary);
  return in.read(magic, 4) && std::string(magic, 4) == "PK\3\4";
}

std::string read_zip_member(const std::string& path, const std::string& member) {
  Archive archive(path);
  const Member m = archive.find(member);
  const std::string where = path + ": " + member;
  if (m.packed == UINT32_MAX || m.size == UINT32_MAX) fail(where + " is larger than 4 GiB");
  if (m.method != 0 && m.method != 8) fail(where + " is neither stored nor deflated");
  // Deflate cannot shrink by more than 1032: what claims more would only ask for memory.
  if (m.method == 0 ? m.size != m.packed : m.size / 1032 > m.packed) fail(where + ": wrong size");
  std::string bytes = archive.content(m);
  if (m.method == 8) {
    std::string unpacked(m.size, '\0');
    if (!inflate_raw(bytes, unpacked)) fail(where + " is corrupt");
    bytes = std::move(unpacked);
  }
  if (crc32_z(0, reinterpret_cast<const Bytef*>(bytes.data()), bytes.size()) != m.check_sum)
    fail(where + ": wrong check sum");
  return bytes;
}

}  // namespace gm
