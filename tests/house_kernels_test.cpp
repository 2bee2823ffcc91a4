// Every kernel begins with await_launch_before(): without it a kernel could read what the one before still
// writes, on sm_90 and later only and not every time (kernels/common/simt.h, launch()).
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <regex>
#include <string>
#include <vector>

namespace fs = std::filesystem;

namespace {

struct Kernels {
  int found = 0;
  std::vector<std::string> without_wait;
};

// The position after the bracket that closes the one at `open`.
size_t after_brackets(const std::string& text, size_t open) {
  int depth = 0;
  for (size_t i = open; i < text.size(); ++i) {
    if (text[i] == '(') ++depth;
    if (text[i] == ')' && --depth == 0) return i + 1;
  }
  return text.size();
}

// The kernels defined in a text, and those whose body begins with anything but shared arrays and the wait.
Kernels kernels_in(std::string text) {
  static const std::regex comment(R"(//[^\n]*|/\*[^]*?\*/)"), mark(R"(\b__global__\b)");
  static const std::regex bounds(R"(__launch_bounds__\s*$)"), name(R"((\w+)\s*$)");
  static const std::regex begin(R"(^\s*\{(\s*GM_(DYN_)?SHARED\([^;]*\);)*\s*await_launch_before\(\);)");
  text = std::regex_replace(text, comment, "");
  Kernels kernels;
  for (auto m = std::sregex_iterator(text.begin(), text.end(), mark); m != std::sregex_iterator(); ++m) {
    size_t head = static_cast<size_t>(m->position()) + m->str().size(), open = text.find('(', head);
    if (std::regex_search(text.substr(head, open - head), bounds)) {
      head = after_brackets(text, open);
      open = text.find('(', head);
    }
    const std::string before = text.substr(head, open - head);
    const size_t body = text.find_first_not_of(" \n", after_brackets(text, open));
    if (body == std::string::npos || text[body] == ';') continue;  // a declaration
    ++kernels.found;
    std::smatch called;
    if (!std::regex_search(text.substr(body, 1000), begin))
      kernels.without_wait.push_back(std::regex_search(before, called, name) ? called[1].str() : before);
  }
  return kernels;
}

const fs::path kRoot = GM_SOURCE_DIR;

}  // namespace

TEST(House, EveryKernelAwaitsTheLaunchBefore) {
  int found = 0;
  for (const char* folder : {"kernels", "tests"})
    for (const auto& entry : fs::recursive_directory_iterator(kRoot / folder)) {
      const std::string end = entry.path().extension().string();
      if (!entry.is_regular_file() || (end != ".cu" && end != ".cuh")) continue;
      std::ifstream file(entry.path());
      const Kernels kernels = kernels_in({std::istreambuf_iterator<char>(file), {}});
      found += kernels.found;
      for (const auto& kernel : kernels.without_wait)
        ADD_FAILURE() << fs::relative(entry.path(), kRoot).generic_string() << ": " << kernel
                      << " does not begin with await_launch_before()";
    }
  EXPECT_GT(found, 100) << "kernels not found under " << kRoot;
}

// Loads that are said never to change what they read may be moved over the wait.
TEST(House, NoKernelCallsItsInputsInvariant) {
  const std::regex comment(R"(//[^\n]*|/\*[^]*?\*/)"), invariant(R"(\b__ldg\b|\b__restrict__\b|\.nc\.)");
  int files = 0;
  for (const auto& entry : fs::recursive_directory_iterator(kRoot / "kernels")) {
    const std::string end = entry.path().extension().string();
    if (!entry.is_regular_file() || (end != ".cu" && end != ".cuh")) continue;
    std::ifstream file(entry.path());
    const std::string text{std::istreambuf_iterator<char>(file), {}};
    ++files;
    EXPECT_FALSE(std::regex_search(std::regex_replace(text, comment, ""), invariant))
        << fs::relative(entry.path(), kRoot).generic_string();
  }
  EXPECT_GT(files, 50);
}

TEST(House, TheWaitIsSeenWhereItIs) {
  auto without = [](const std::string& text) { return kernels_in(text).without_wait.size(); };
  EXPECT_EQ(kernels_in("__global__ void a() { await_launch_before(); }\n__global__ void b(int);").found, 1);
  EXPECT_EQ(without("__global__ void k(float* y) {\n  await_launch_before();\n  y[0] = 1;\n}"), 0u);
  EXPECT_EQ(
      without("__global__ __launch_bounds__(f(8), 2) void k(int n) {  // n: rows\n"
              "  GM_SHARED(float, tile, [8][33]);\n  GM_DYN_SHARED(T, rows);\n  await_launch_before();\n}"),
      0u);
  EXPECT_EQ(without("__global__ void __launch_bounds__(256)\n    k(int n) { await_launch_before(); }"), 0u);
  EXPECT_EQ(without("__global__ void k() {}"), 1u);
  EXPECT_EQ(without("__global__ void k(int n) {\n  if (n) return;\n  await_launch_before();\n}"), 1u);
  EXPECT_EQ(without("__global__ void k() {\n  // await_launch_before();\n}"), 1u);
  EXPECT_EQ(without("__global__ __launch_bounds__(256) void k(float* y) {\n  const float a = y[0];\n"
                    "  await_launch_before();\n}\n__global__ void l() { await_launch_before(); }"),
            1u);
  EXPECT_EQ(kernels_in("__global__ __launch_bounds__(8) void wrong(int) { return; }").without_wait,
            std::vector<std::string>{"wrong"});
}
