// report.html: what is in it, and what a browser without a network makes of it.
#include "tools/report.h"

#include <cstdlib>
#include <nlohmann/json.hpp>

#include "tests/tools_test_util.h"
#include "tools/pictures/markup.h"
#include "tools/shell.h"

namespace gm {
namespace {

namespace fs = std::filesystem;
using test::expect_failure;
using test::expect_success;
using test::Ran;
using test::run;

size_t count(const std::string& text, const std::string& part) {
  size_t n = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + part.size())) ++n;
  return n;
}

/// Classes with names that a careless page would take for markup.
const std::vector<std::string> kClasses{"round & smooth", "<b>cigar</b>", "edge-on",
                                        "<script>alert(1)</script>", "spiral 'S'"};

/// A run of one epoch on 100 synthetic images, its classes renamed.
class Report : public testing::Test {
 protected:
  Report() {
    std::string config = test::tiny_config();
    config.replace(config.find("train: {"), 8, "train: {precision: tf32, ");
    test::write_text(dir / "tiny.yaml", config);
    expect_success(run("gm_data", {"synth", "--classes", "gz5", "--count", "100", "--size", "40", "--format",
                                   "png", "--quiet", "--out", data}));
    const CsvTable labels(data + "/labels.csv");
    std::string csv = "id_str,file_loc,class,label\n";
    for (int64_t r = 0; r < labels.rows(); ++r) {
      const std::string& label = labels.cell(r, labels.column("label"));
      csv += csv_cell("<i>" + std::to_string(r)) + "," + labels.cell(r, labels.column("file_loc")) + "," +
             csv_cell(kClasses[std::stoul(label)]) + "," + label + "\n";
    }
    test::write_text(data + "/labels.csv", csv);
    expect_success(run("gm_train", {dir / "tiny.yaml", "--data", data, "--out", model, "--epochs", "1",
                                    "--device", "cpu", "--threads", "2", "--quiet"}));
  }
  Ran eval(const std::string& out, const std::vector<std::string>& more = {},
           const test::Process::Options& options = {}) {
    std::vector<std::string> args{"--model", model, "--data",  data,        "--device", "cpu",
                                  "--out",   out,   "--quiet", "--threads", "2"};
    args.insert(args.end(), more.begin(), more.end());
    return run("gm_eval", args, options);
  }
  test::TempDir dir;
  std::string data = dir /
                     "a_set_whose_name_is_too_long_for_one_line_of_a_narrow_window_and_has_no_place_to_break",
              model = dir / "a run";
};

TEST_F(Report, HoldsTheRun) {
  const std::string out = dir / "out";
  expect_success(eval(out, {"--split", "val", "--speed"}));
  const std::string page = test::read_text(out + "/report.html");
  for (const char* title :
       {"Training", "Confusion matrix", "Scores by class", "Calibration", "Speed", "Misclassified galaxies",
        "What the network looks at", "Model card", "Data card", "Command"})
    EXPECT_EQ(count(page, std::string("<h2>") + title + "</h2>"), 1u) << title;
  EXPECT_EQ(count(page, "1 epochs at most, batch 8, seed 0, tf32"), 1u);
  const auto j = nlohmann::json::parse(test::read_text(out + "/metrics.json"));
  const CsvTable predictions(out + "/predictions.csv");
  size_t wrong = 0;
  for (int64_t r = 0; r < predictions.rows(); ++r)
    if (predictions.cell(r, 1) != predictions.cell(r, 2)) {
      ++wrong;
      EXPECT_NE(page.find("alt=\"" + markup_text(predictions.cell(r, 0)) + "\""), std::string::npos);
    }
  ASSERT_GT(wrong, 0u);
  EXPECT_EQ(count(page, "<figure>"), wrong);
  for (const auto& s : j["per_class"]) {
    const std::string row = "<tr><td>" + markup_text(s["class"]) + "</td><td>";
    char cell[32];
    std::snprintf(cell, sizeof cell, "%.1f %%", 100 * s["precision"].get<double>());
    EXPECT_NE(page.find(row + cell), std::string::npos) << row << cell;
  }
  EXPECT_NE(page.find("gm_train &#39;" + model + "/config.yaml&#39; --out NEW_FOLDER"), std::string::npos);
  EXPECT_NE(page.find("<pre>gm_train " + (dir / "tiny.yaml") + " --data " + data + " --out &#39;" + model +
                      "&#39; --epochs 1 --device cpu --threads 2 --quiet\n"),
            std::string::npos);
  EXPECT_NE(page.find("gm_eval --model &#39;" + model + "&#39; --data " + data), std::string::npos);
  EXPECT_NE(page.find(">config.yaml</summary>"), std::string::npos);
  EXPECT_EQ(page.find("trained on; --split val"), std::string::npos);
  // Nothing is fetched and nothing is executed.
  EXPECT_EQ(page.find("<script"), std::string::npos);
  EXPECT_EQ(page.find("<i>"), std::string::npos);
  for (const char* attribute : {" src=\"", " href=\""})
    EXPECT_EQ(count(page, attribute), count(page, std::string(attribute) + "data:"));
  EXPECT_EQ(page.find("@import"), std::string::npos);
  EXPECT_EQ(page.find("url("), std::string::npos);

  for (const char* chart : {"reliability.svg", "loss.svg", "accuracy.svg"})
    EXPECT_NE(page.find(test::read_text(out + "/" + chart)), std::string::npos) << chart;
  // All images: a note says that training images are among them.
  expect_success(eval(dir / "all"));
  EXPECT_NE(test::read_text(dir / "all/report.html").find("Among these are the images that the network was"),
            std::string::npos);
}

/// A lone weight file has no curves, no configuration and no split.
TEST_F(Report, NeedsNoRunFolder) {
  fs::copy(model + "/best.safetensors", dir / "lone.safetensors");
  model = dir / "lone.safetensors";
  expect_success(eval(dir / "out"));
  const std::string page = test::read_text(dir / "out/report.html");
  EXPECT_EQ(page.find("<h2>Training</h2>"), std::string::npos);
  EXPECT_EQ(page.find("gm_train"), std::string::npos);
  EXPECT_NE(page.find("<h2>Model card</h2>"), std::string::npos);
  EXPECT_FALSE(fs::exists(dir / "out/loss.svg"));
}

/// A split.csv that is not of gm_train has no counts, and no columns for them.
TEST_F(Report, ForeignSplitFileAddsNoColumns) {
  for (const char* text : {"id,fold\n1,2\n", "id_str,label,split\n1,spiral,train\n"}) {
    test::write_text(model + "/split.csv", text);
    expect_success(eval(dir / "out"));
    const std::string page = test::read_text(dir / "out/report.html");
    EXPECT_NE(page.find("<th>class</th><th>evaluated</th><th>share</th>"), std::string::npos) << text;
  }
}

TEST_F(Report, FullDiskLosesNothing) {
  const std::string out = dir / "out";
  const Ran r = eval(out, {}, {.file_limit = 60000});
  expect_failure(r, 1, {out + "/report.html", "File too large"});
  EXPECT_EQ(r.out.rfind("accuracy ", 0), 0u);
  EXPECT_EQ(nlohmann::json::parse(test::read_text(out + "/metrics.json"))["n"], 100);
  EXPECT_EQ(CsvTable(out + "/predictions.csv").rows(), 100);
  EXPECT_EQ(std::distance(fs::directory_iterator(out), {}), 6) << "a temporary file was left";
  EXPECT_FALSE(fs::exists(out + "/report.html"));
  // An older report stays what it was.
  expect_success(eval(out));
  const std::string before = test::read_text(out + "/report.html");
  expect_failure(eval(out, {}, {.file_limit = 60000}), 1, {out + "/report.html"});
  EXPECT_EQ(test::read_text(out + "/report.html"), before);
}

/// Headless Chromium, with every host name unresolvable.
class Browser {
 public:
  Browser() {
    for (const char* name : {"chromium", "chromium-browser", "google-chrome"})
      if (program_.empty() &&
          std::system(("command -v " + std::string(name) + " >/dev/null 2>&1").c_str()) == 0)
        program_ = name;
    if (program_.empty()) return;
    test::write_text(dir_ / "probe.html",
                     "<p id=x></p><script>x.textContent=6*7;console.error('seen')</script>");
    const auto [dom, console] = open(dir_ / "probe.html");
    if (dom.find(">42<") == std::string::npos || console.find("seen") == std::string::npos) program_.clear();
  }
  explicit operator bool() const { return !program_.empty(); }
  /// The document after loading, and the lines of the console.
  std::pair<std::string, std::string> open(const std::string& page, const std::string& more = "") {
    const std::string command = "timeout 60 " + program_ +
                                " --headless --no-sandbox --disable-gpu --enable-logging=stderr "
                                "--host-resolver-rules='MAP * ~NOTFOUND' --user-data-dir='" +
                                (dir_ / "profile") + "' " + more + " --dump-dom 'file://" + page + "' >'" +
                                (dir_ / "dom") + "' 2>'" + (dir_ / "log") + "'";
    if (std::system(command.c_str()) != 0) return {};
    const std::string log = test::read_text(dir_ / "log");
    std::string console;
    for (size_t at = 0; at < log.size();) {
      const size_t end = std::min(log.find('\n', at), log.size());
      const std::string line = log.substr(at, end - at);
      if (line.find("CONSOLE") != std::string::npos) console += line + "\n";
      at = end + 1;
    }
    return {test::read_text(dir_ / "dom"), console};
  }

 private:
  test::TempDir dir_;
  std::string program_;
};

TEST_F(Report, ABrowserShowsItWithoutErrors) {
  Browser browser;
  if (!browser) GTEST_SKIP() << "no Chromium that runs headless";
  const std::string out = dir / "out";
  expect_success(eval(out, {"--split", "val"}));
  const auto [dom, console] = browser.open(out + "/report.html");
  EXPECT_EQ(console, "");
  EXPECT_EQ(count(dom, "<h2>"), 9u);
  // The same page with a script that looks at it: pictures decoded, charts with a size, nothing wider than
  // the window, no element made from names.
  std::string page = test::read_text(out + "/report.html");
  const size_t policy = page.find("<meta http-equiv=");
  page.erase(policy, page.find('>', policy) + 1 - policy);
  page.insert(page.find("</body>"), R"(<script>
const images = [...document.images], charts = [...document.querySelectorAll('svg')];
document.body.dataset.probe = [images.length, images.filter(i => i.complete && i.naturalWidth > 0).length,
  charts.length, charts.filter(c => c.getBoundingClientRect().height > 100).length,
  document.documentElement.scrollWidth <= window.innerWidth, document.querySelectorAll('i, td b').length].join();
</script>)");
  test::write_text(dir / "probe.html", page);
  const std::string images = std::to_string(count(page, "<img "));
  for (const char* width : {"--window-size=1200,900", "--window-size=500,900"}) {
    const auto [probed, errors] = browser.open(dir / "probe.html", width);
    EXPECT_EQ(errors, "");
    EXPECT_NE(probed.find("data-probe=\"" + images + "," + images + ",3,3,true,0\""), std::string::npos)
        << probed.substr(probed.find("data-probe"), 60);
  }
}

TEST(ReportParts, ChoosesImages) {
  const std::vector<Outcome> all{{0, 0, 0, .9}, {1, 0, 0, .95}, {2, 1, 0, .5}, {3, 1, 0, .8},
                                 {4, 2, 2, .4}, {5, 2, 1, .8},  {6, 2, 2, .3}};
  auto rows = [](const std::vector<Outcome>& list) {
    std::vector<int64_t> r;
    for (const Outcome& o : list) r.push_back(o.row);
    return r;
  };
  using Rows = std::vector<int64_t>;
  EXPECT_EQ(rows(worst_mistakes(all, 9)), (Rows{3, 5, 2}));
  EXPECT_EQ(rows(worst_mistakes(all, 1)), (Rows{3}));
  EXPECT_EQ(rows(telling_examples(all, 4)), (Rows{1, 4, 3, 5}));
  EXPECT_EQ(rows(telling_examples(all, 1)), (Rows{1}));
}

TEST(ReportParts, CommandCanBePasted) {
  std::vector<std::string> words{"/usr/bin/gm_eval", "--data", "a b", "it's", "", "x=1,2"};
  std::vector<char*> argv;
  for (auto& w : words) argv.push_back(w.data());
  EXPECT_EQ(shell_command(6, argv.data()), "gm_eval --data 'a b' 'it'\\''s' '' x=1,2");
}

TEST(ReportParts, PicturesInsideThePage) {
  for (int width : {2, 3, 4, 5, 6, 7}) {
    const Image image = test::gradient(width, 3, width);
    const std::string uri = picture_uri(image), head = "data:image/png;base64,";
    ASSERT_EQ(uri.rfind(head, 0), 0u);
    std::vector<uint8_t> bytes;
    uint32_t bits = 0, held = 0;
    for (char c : uri.substr(head.size())) {
      if (c == '=') break;
      const int digit = c >= 'a'   ? c - 'a' + 26
                        : c >= 'A' ? c - 'A'
                        : c >= '0' ? c - '0' + 52
                        : c == '+' ? 62
                                   : 63;
      bits = bits << 6 | static_cast<uint32_t>(digit);
      if ((held += 6) >= 8) bytes.push_back(static_cast<uint8_t>(bits >> (held -= 8)));
    }
    EXPECT_EQ(uri.size() % 4, head.size() % 4);
    EXPECT_EQ(decode_image(bytes.data(), bytes.size(), "uri").rgb, image.rgb);
  }
}

}  // namespace
}  // namespace gm
