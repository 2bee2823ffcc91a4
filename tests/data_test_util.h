// What the data tests share: a folder that cleans up after itself, small pictures, hand-made PNG files.
#pragma once
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>
#include <vector>

#include "data/dataset.h"
#include "kernels/common/error.h"

namespace gm::test {

class TempDir {
 public:
  TempDir() {
    std::string name = (std::filesystem::temp_directory_path() / "gm_data_test_XXXXXX").string();
    if (!::mkdtemp(name.data())) ADD_FAILURE() << "no temporary folder";
    path_ = name;
  }
  ~TempDir() { std::filesystem::remove_all(path_); }
  std::string operator/(const std::string& name) const { return (path_ / name).string(); }
  std::string path() const { return path_.string(); }
  size_t entries() const {
    return static_cast<size_t>(std::distance(std::filesystem::recursive_directory_iterator(path_), {}));
  }

 private:
  std::filesystem::path path_;
};

/// Descriptors of this process that lead to files with `part` in their name.
inline int open_files(const std::string& part) {
  int count = 0;
  std::error_code none;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd"))
    count += std::filesystem::read_symlink(entry, none).string().find(part) != std::string::npos;
  return count;
}

inline void write_text(const std::string& path, const std::string& text) {
  std::ofstream(path, std::ios::binary) << text;
}

inline std::string read_text(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

/// Each pixel different, smooth enough for JPEG: R grows with x, G with y, B is `blue`.
inline Image gradient(int width, int height, int blue = 100) {
  Image image{width, height, std::vector<uint8_t>(static_cast<size_t>(width) * height * 3)};
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < width; ++x) {
      uint8_t* p = image.rgb.data() + (static_cast<size_t>(y) * width + x) * 3;
      p[0] = static_cast<uint8_t>(x * 255 / std::max(1, width - 1));
      p[1] = static_cast<uint8_t>(y * 255 / std::max(1, height - 1));
      p[2] = static_cast<uint8_t>(blue);
    }
  return image;
}

inline std::string big_endian(uint32_t v) { return {char(v >> 24), char(v >> 16), char(v >> 8), char(v)}; }

/// The check sum of a PNG chunk: CRC-32 of its type and data.
inline std::string png_check_sum(const std::string& body) {
  uint32_t crc = 0xFFFFFFFFu;
  for (unsigned char c : body) {
    crc ^= c;
    for (int k = 0; k < 8; ++k) crc = (crc >> 1) ^ (crc & 1 ? 0xEDB88320u : 0);
  }
  return big_endian(~crc);
}

/// A PNG written by hand, uncompressed inside: `samples` are the raw bytes of all rows, top to bottom.
/// colour: 0 grey, 2 RGB, 4 grey + alpha, 6 RGBA.
inline std::string png_bytes(uint32_t width, uint32_t height, int depth, int colour,
                             const std::string& samples) {
  auto chunk = [&](const std::string& type, const std::string& data) {
    const std::string body = type + data;
    return big_endian(static_cast<uint32_t>(data.size())) + body + png_check_sum(body);
  };
  std::string raw;
  size_t line = height ? samples.size() / height : 0;
  for (uint32_t y = 0; y < height; ++y) raw += std::string(1, '\0') + samples.substr(y * line, line);
  uint32_t a = 1, b = 0;  // Adler-32
  for (unsigned char c : raw) {
    a = (a + c) % 65521;
    b = (b + a) % 65521;
  }
  std::string stream = "\x78\x01";
  for (size_t at = 0; at < raw.size() || at == 0; at += 65535) {
    std::string part = raw.substr(at, 65535);
    uint16_t n = static_cast<uint16_t>(part.size());
    stream +=
        std::string{char(at + 65535 >= raw.size()), char(n), char(n >> 8), char(~n), char(~n >> 8)} + part;
  }
  std::string header =
      big_endian(width) + big_endian(height) + std::string{char(depth), char(colour), 0, 0, 0};
  return "\x89PNG\r\n\x1a\n" + chunk("IHDR", header) + chunk("IDAT", stream + big_endian(b << 16 | a)) +
         chunk("IEND", "");
}

/// What a call throws, or "" when it does not throw gm::Error.
template <class F>
std::string error_of(F&& call) {
  try {
    call();
  } catch (const Error& error) {
    EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos) << "an error is one line";
    return error.what();
  }
  return "";
}

#define EXPECT_ERROR(call, part) \
  EXPECT_PRED_FORMAT2(::testing::IsSubstring, part, ::gm::test::error_of([&] { call; }))

/// An in-memory dataset for loader and split tests: image i is a gradient whose blue is i.
class FakeDataset : public Dataset {
 public:
  FakeDataset(int64_t n, int classes, int side = 16) : side_(side) {
    for (int k = 0; k < classes; ++k) classes_.push_back("c" + std::to_string(k));
    for (int64_t i = 0; i < n; ++i) labels.push_back(static_cast<int>(i % classes));
  }
  int64_t size() const override { return static_cast<int64_t>(labels.size()); }
  const std::vector<std::string>& classes() const override { return classes_; }
  int label(int64_t i) const override { return labels[i]; }
  bool soft() const override { return !soft_labels.empty(); }
  std::span<const float> soft_label(int64_t i) const override {
    if (!soft()) return {};
    return {&soft_labels[static_cast<size_t>(i) * classes_.size()], classes_.size()};
  }
  std::string id(int64_t i) const override { return "g" + std::to_string(i); }
  bool sky(int64_t i, double& ra, double& dec) const override {
    if (positions.empty()) return false;
    ra = positions[i].first;
    dec = positions[i].second;
    return true;
  }
  Image read(int64_t i) const override {
    if (i == bad_row) bad();
    return gradient(side_, side_, static_cast<int>(i % 256));
  }
  const std::string& path() const override { return path_; }

  std::vector<int> labels;
  std::vector<float> soft_labels;  // (N, classes), or none
  std::vector<std::pair<double, double>> positions;
  int64_t bad_row = -1;
  std::function<void()> bad = [this] { fail("g" + std::to_string(bad_row) + ".jpg: truncated image"); };

 private:
  int side_;
  std::string path_ = "fake";
  std::vector<std::string> classes_;
};

}  // namespace gm::test
