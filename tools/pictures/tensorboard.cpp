#include "tools/pictures/tensorboard.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <cstring>
#include <fstream>

#include "kernels/common/error.h"

namespace gm {

namespace {

// The few pieces of protocol buffers that an Event message needs.
std::string varint(uint64_t v) {
  std::string s;
  for (; v >= 128; v >>= 7) s += static_cast<char>(v | 128);
  return s + static_cast<char>(v);
}
template <class T>
std::string raw(T v) {
  return std::string(reinterpret_cast<const char*>(&v), sizeof v);
}
enum Wire { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };
std::string key(int field, Wire wire) { return varint(static_cast<uint64_t>(field) << 3 | wire); }
std::string bytes(int field, const std::string& content) {
  return key(field, kBytes) + varint(content.size()) + content;
}

double now() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

std::string number(int field, double v) { return key(field, kFixed64) + raw(v); }
std::string numbers(int field, const std::vector<double>& v) {
  return bytes(field, std::string(reinterpret_cast<const char*>(v.data()), v.size() * sizeof v[0]));
}

// Event { double wall_time = 1; int64 step = 2; string file_version = 3; Summary summary = 5; }
std::string event(int64_t step, const std::string& what) {
  return key(1, kFixed64) + raw(now()) + key(2, kVarint) + varint(static_cast<uint64_t>(step)) + what;
}

}  // namespace

uint32_t crc32c(const std::string& text) {
  static const auto table = [] {
    std::array<uint32_t, 256> t{};
    for (uint32_t i = 0; i < 256; ++i) {
      t[i] = i;
      for (int k = 0; k < 8; ++k) t[i] = (t[i] >> 1) ^ (t[i] & 1 ? 0x82F63B78u : 0);
    }
    return t;
  }();
  uint32_t crc = ~0u;
  for (unsigned char c : text) crc = (crc >> 8) ^ table[(crc ^ c) & 255];
  return ~crc;
}

Histogram histogram_of(std::span<const float> values) {
  Histogram h;
  bool any = false;
  for (const float v : values) {
    if (!std::isfinite(v)) continue;
    const double x = v;
    h.min = any ? std::min(h.min, x) : x;
    h.max = any ? std::max(h.max, x) : x;
    h.sum += x;
    h.sum_squares += x * x;
    any = true;
  }
  if (!any) return h;
  const int n = h.max > h.min ? Histogram::kBuckets : 1;
  const double width = (h.max - h.min) / n;
  h.counts.assign(static_cast<size_t>(n), 0);
  for (int i = 1; i < n; ++i) h.right_edges.push_back(h.min + i * width);
  h.right_edges.push_back(h.max);
  for (const float v : values) {
    if (!std::isfinite(v)) continue;
    const double at = width > 0 ? (v - h.min) / width : 0;
    ++h.counts[static_cast<size_t>(std::min(n - 1, static_cast<int>(at)))];
  }
  return h;
}

EventWriter::EventWriter(const std::string& folder)
    : path_(folder + "/events.out.tfevents." + std::to_string(static_cast<int64_t>(now())) + "." +
            std::to_string(::getpid())) {
  record(event(0, bytes(3, "brain.Event:2")));
}

// Summary { repeated Value value = 1; } with Value { string tag = 1; float simple_value = 2; }
void EventWriter::scalars(int64_t step, const std::vector<std::pair<std::string, double>>& values) {
  std::string summary;
  for (const auto& [tag, value] : values)
    summary += bytes(1, bytes(1, tag) + key(2, kFixed32) + raw(static_cast<float>(value)));
  record(event(step, bytes(5, summary)));
}

// Value { string tag = 1; HistogramProto histo = 5; } with HistogramProto { double min = 1, max = 2, num = 3,
// sum = 4, sum_squares = 5; repeated double bucket_limit = 6 [packed], bucket = 7 [packed]; }
void EventWriter::histograms(int64_t step, const std::vector<std::pair<std::string, Histogram>>& values) {
  std::string summary;
  for (const auto& [tag, h] : values) {
    if (h.counts.empty()) continue;
    double total = 0;
    for (const double n : h.counts) total += n;
    summary += bytes(1, bytes(1, tag) + bytes(5, number(1, h.min) + number(2, h.max) + number(3, total) +
                                                     number(4, h.sum) + number(5, h.sum_squares) +
                                                     numbers(6, h.right_edges) + numbers(7, h.counts)));
  }
  record(event(step, bytes(5, summary)));
}

// Value { string tag = 1; Image image = 4; } with Image { int32 height = 1, width = 2, colorspace = 3 (RGB:
// 3); bytes encoded_image_string = 4; }
void EventWriter::picture(int64_t step, const std::string& tag, const Image& image) {
  const auto whole = [](int field, int v) { return key(field, kVarint) + varint(static_cast<uint64_t>(v)); };
  const std::vector<uint8_t> png = encode_png(image);
  record(event(step,
               bytes(5, bytes(1, bytes(1, tag) +
                                     bytes(4, whole(1, image.height) + whole(2, image.width) + whole(3, 3) +
                                                  bytes(4, std::string(png.begin(), png.end())))))));
}

// TFRecord: length, masked checksum of the length, content, masked checksum of the content.
void EventWriter::record(const std::string& content) {
  auto masked = [](const std::string& s) {
    const uint32_t crc = crc32c(s);
    return raw<uint32_t>(((crc >> 15) | (crc << 17)) + 0xA282EAD8u);
  };
  const std::string length = raw<uint64_t>(content.size());
  std::ofstream file(path_, std::ios::binary | std::ios::app);
  file << length << masked(length) << content << masked(content) << std::flush;
  if (!file) fail(path_ + ": cannot write: " + std::strerror(errno));
}

}  // namespace gm
