#include "tools/pictures/tensorboard.h"

#include <cstring>

#include "tests/data_test_util.h"

namespace gm {
namespace {

TEST(TensorBoard, ChecksumIsCastagnolis) {
  EXPECT_EQ(crc32c("123456789"), 0xE3069283u);
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8A9136AAu);  // RFC 3720, B.4
}

TEST(TensorBoard, RecordsCanBeReadBack) {
  test::TempDir dir;
  EventWriter writer(dir.path());
  writer.scalars(300, {{"loss/train", 0.5}, {"loss/val", 0.25}});
  std::string file;
  for (const auto& entry : std::filesystem::directory_iterator(dir.path())) {
    EXPECT_EQ(entry.path().filename().string().rfind("events.out.tfevents.", 0), 0u);
    file = test::read_text(entry.path());
  }
  std::vector<std::string> events;
  for (size_t at = 0; at < file.size();) {
    uint64_t length = 0;
    std::memcpy(&length, file.data() + at, 8);
    ASSERT_LE(at + 16 + length, file.size());
    events.push_back(file.substr(at + 12, length));
    uint32_t stored = 0;
    std::memcpy(&stored, file.data() + at + 12 + length, 4);
    const uint32_t crc = stored - 0xA282EAD8u;
    EXPECT_EQ(crc >> 17 | crc << 15, crc32c(events.back()));
    at += 16 + length;
  }
  ASSERT_EQ(events.size(), 2u);
  EXPECT_NE(events[0].find("\x1a\x0d"
                           "brain.Event:2"),
            std::string::npos);
  // step 300 is the varint AC 02; 0.5 is 3F000000, 0.25 is 3E800000, little endian.
  const std::string value1 = std::string("\x0a\x11\x0a\x0aloss/train\x15", 15) + std::string("\0\0\0\x3f", 4),
                    value2 = std::string("\x0a\x0f\x0a\x08loss/val\x15", 13) + std::string("\0\0\x80\x3e", 4);
  EXPECT_EQ(events[1].substr(9), std::string("\x10\xac\x02\x2a\x24", 5) + value1 + value2);
}

}  // namespace
}  // namespace gm
