// gm_data preview: the pixels of its sheet are those that validation and training see.
#include <algorithm>

#include "data/transform.h"
#include "tests/tools_test_util.h"

namespace gm {
namespace {

namespace fs = std::filesystem;
using test::expect_failure;
using test::expect_success;
using test::run;

constexpr int kCell = 128, kGap = 6, kTop = 22, kSide = 64;

/// Cell (row, column) of the sheet without its last lines, which hold the class name.
std::vector<uint8_t> cell(const Image& sheet, int row, int column) {
  std::vector<uint8_t> out;
  for (int y = 0; y < kCell - 14; ++y) {
    const auto at = sheet.rgb.begin() +
                    3 * ((kTop + row * (kCell + kGap) + y) * sheet.width + kGap + column * (kCell + kGap));
    out.insert(out.end(), at, at + 3 * kCell);
  }
  return out;
}

std::vector<uint8_t> expected(const Transform& transform, const Image& image, uint32_t epoch, uint32_t row) {
  std::vector<float> pixels(kSide * kSide * 3);
  transform.apply(image, 7, epoch, row, pixels.data());
  Image small{kSide, kSide, {}};
  for (float v : pixels) small.rgb.push_back(static_cast<uint8_t>(std::clamp(v + 0.5f, 0.f, 255.f)));
  auto rgb = resize_image(small, kCell).rgb;
  rgb.resize(3 * kCell * (kCell - 14));
  return rgb;
}

TEST(Preview, ShowsWhatTrainingSees) {
  test::TempDir dir;
  fs::create_directories(dir / "set/images");
  std::string csv = "id_str,label\n";
  std::vector<Image> images;
  for (int i = 0; i < 6; ++i) {
    images.push_back(test::gradient(100, 80, i * 40));
    write_image(dir / "set/images/" + std::to_string(i) + ".png", images.back());
    csv += std::to_string(i) + "," + std::to_string(i / 2) + "\n";
  }
  test::write_text(dir / "set/labels.csv", csv);
  const std::string config = std::string(GM_SOURCE_DIR) + "/models/effg0.yaml";
  auto preview = [&](std::vector<std::string> more) {
    more.insert(more.begin(), {"preview", dir / "set", "--config", config, "--out", dir / "sheet.png",
                               "--set", "input.size=64", "--seed", "7"});
    return run("gm_data", more);
  };
  expect_success(preview({"--rows", "3", "--columns", "4"}));
  const Image sheet = read_image(dir / "sheet.png");
  EXPECT_EQ(sheet.width, kGap + 6 * (kCell + kGap));
  EXPECT_EQ(sheet.height, kTop + 3 * (kCell + kGap));
  const TransformConfig gz = TransformConfig::gz(kSide);
  const Transform evaluation(gz, false), training(gz, true);
  for (int row = 0; row < 3; ++row) {  // the first galaxy of each class
    const Image& image = images[2 * row];
    auto original = resize_image(image, kCell).rgb;
    original.resize(3 * kCell * (kCell - 14));
    EXPECT_EQ(cell(sheet, row, 0), original);
    const auto at = static_cast<uint32_t>(2 * row);
    EXPECT_EQ(cell(sheet, row, 1), expected(evaluation, image, 0, at));
    for (uint32_t epoch = 0; epoch < 4; ++epoch)
      EXPECT_EQ(cell(sheet, row, 2 + static_cast<int>(epoch)), expected(training, image, epoch, at));
    EXPECT_NE(cell(sheet, row, 2), cell(sheet, row, 3));
  }
  const auto quiet = preview({"--rows", "5", "--columns", "1", "--quiet"});
  expect_success(quiet);
  EXPECT_EQ(quiet.out + quiet.err, "");
  EXPECT_EQ(read_image(dir / "sheet.png").height, kTop + 5 * (kCell + kGap)) << "more than there are classes";

  std::string eight = "file_loc,label\n";
  for (int i = 0; i < 16; ++i) eight += "set/images/0.png," + std::to_string(i / 2) + "\n";
  test::write_text(dir / "eight.csv", eight);
  expect_success(
      run("gm_data", {"preview", dir / "eight.csv", "--config", config, "--out", dir / "sheet.png"}));
  EXPECT_EQ(read_image(dir / "sheet.png").height, kTop + 8 * (kCell + kGap)) << "one of each class";
  expect_failure(preview({"--rows", "0"}), 2, {"--rows"});
  expect_failure(preview({"--set", "augment.zoom=7"}), 1, {" (--set): augment.zoom: must be 0.1"});
  expect_failure(run("gm_data", {"preview", dir / "none", "--config", config, "--out", dir / "x.png"}), 1,
                 {"none"});
  expect_failure(
      run("gm_data", {"preview", dir / "set", "--config", dir / "no.yaml", "--out", dir / "x.png"}), 1,
      {"no.yaml"});
  expect_failure(run("gm_data", {"preview", dir / "set", "--config", config, "--out", dir / "x.gif"}), 1,
                 {"x.gif"});
  expect_failure(run("gm_data", {"preview", dir / "set", "--config", config, "--out", dir / "no/x.png"}), 1,
                 {"no/x.png"});
}

}  // namespace
}  // namespace gm
