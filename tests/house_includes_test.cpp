// The rules of the house that a compiler does not check: who may include whom, and what an op folder holds.
//   tools, tests -> data, layers -> engine -> kernels; data and layers do not know each other;
//   CUDA headers only in kernels/ and engine/*cuda*;
//   tools/pictures knows no other part of tools, and of the others only gm_search knows tools/search.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <regex>
#include <set>
#include <sstream>
#include <string>
#include <vector>

namespace fs = std::filesystem;

namespace {

const std::map<std::string, std::set<std::string>> kMayInclude{
    {"kernels", {"kernels"}},
    {"engine", {"engine", "kernels"}},
    {"layers", {"layers", "engine", "kernels"}},
    {"data", {"data", "engine", "kernels"}},
    {"tools", {"tools", "data", "layers", "engine", "kernels"}},
};

std::string first_part(const std::string& path) { return path.substr(0, path.find('/')); }
bool ends_with(const std::string& s, const std::string& end) {
  return s.size() >= end.size() && s.compare(s.size() - end.size(), end.size(), end) == 0;
}
bool is_header(const std::string& path) { return ends_with(path, ".h") || ends_with(path, ".cuh"); }

// What is wrong with one file; path is relative to the root, with forward slashes.
std::vector<std::string> violations(const std::string& path, const std::string& text) {
  static const std::regex include(R"(^\s*#\s*include\s*([<"])([^">]+)[">])");
  static const std::regex cuda_header(
      R"(^(cuda|cudnn|cublas|curand|cub/|nccl|nvtx|nvjpeg|cooperative_groups|mma\.h).*)");
  std::vector<std::string> found;
  const std::string folder = first_part(path), name = path.substr(path.rfind('/') + 1);
  const bool may_use_cuda =
      folder == "kernels" || (folder == "engine" && name.find("cuda") != std::string::npos);
  auto in = [](const std::string& file, const char* part) { return file.rfind(part, 0) == 0; };
  bool once = false;
  std::istringstream lines(text);
  std::string line;
  for (int number = 1; std::getline(lines, line); ++number) {
    const std::string at = path + ":" + std::to_string(number) + ": ";
    once |= line.rfind("#pragma once", 0) == 0;
    std::smatch m;
    if (!std::regex_search(line, m, include)) continue;
    const std::string header = m[2];
    if (std::regex_match(header, cuda_header) && !may_use_cuda) found.push_back(at + "CUDA header " + header);
    if (m[1] == "<") {
      if (kMayInclude.count(first_part(header)) && header.find('/') != std::string::npos)
        found.push_back(at + "write \"" + header + "\", with quotes");
      continue;
    }
    const std::string target = first_part(header);
    if (std::regex_match(header, cuda_header)) continue;
    if (!kMayInclude.count(target) && target != "tests")
      found.push_back(at + "\"" + header + "\" is not a path from the root");
    else if (!kMayInclude.at(folder).count(target))
      found.push_back(at + folder + " must not include " + header);
    else if (in(path, "tools/pictures/") && in(header, "tools/") && !in(header, "tools/pictures/"))
      found.push_back(at + "tools/pictures must not include " + header);
    else if (in(path, "tools/") && !in(path, "tools/search/") && path != "tools/gm_search.cpp" &&
             in(header, "tools/search/"))
      found.push_back(at + "only gm_search includes " + header);
  }
  if (is_header(path) && !once) found.push_back(path + ": no #pragma once");
  return found;
}

std::string read(const fs::path& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

const fs::path kRoot = GM_SOURCE_DIR;

std::vector<std::string> source_files(const std::string& folder) {
  std::vector<std::string> files;
  for (const auto& entry : fs::recursive_directory_iterator(kRoot / folder)) {
    const std::string path = fs::relative(entry.path(), kRoot).generic_string();
    if (entry.is_regular_file() &&
        (is_header(path) || ends_with(path, ".cpp") || ends_with(path, ".cu") || ends_with(path, ".inc")))
      files.push_back(path);
  }
  std::sort(files.begin(), files.end());
  return files;
}

// Names in op_list.inc, in its order.
std::vector<std::string> listed_ops() {
  static const std::regex entry(R"(^GM_OP(?:_FORWARD)?\((\w+)\)\s*$)");
  std::vector<std::string> names;
  std::istringstream lines(read(kRoot / "kernels/op_list.inc"));
  std::string line;
  for (std::smatch m; std::getline(lines, line);)
    if (std::regex_match(line, m, entry))
      names.push_back(m[1]);
    else if (!line.empty() && line.rfind("//", 0) != 0)
      ADD_FAILURE() << "op_list.inc: neither an op nor a comment: " << line;
  return names;
}

}  // namespace

TEST(House, IncludesPointDownwards) {
  int files = 0;
  for (const auto& [folder, _] : kMayInclude)
    for (const auto& path : source_files(folder)) {
      ++files;
      for (const auto& wrong : violations(path, read(kRoot / path))) ADD_FAILURE() << wrong;
    }
  EXPECT_GT(files, 50) << "sources not found under " << kRoot;
}

TEST(House, TheCheckSeesWhatItShould) {
  EXPECT_TRUE(violations("engine/a.h", "#pragma once\n#include \"kernels/common/op.h\"\n").empty());
  EXPECT_TRUE(violations("engine/device_cuda.cpp", "#include <cuda_runtime.h>\n").empty());
  EXPECT_TRUE(violations("tools/a.cpp", "#include \"data/a.h\"\n#include \"layers/b.h\"\n").empty());
  EXPECT_TRUE(violations("kernels/a/a.cpp", "// #include \"engine/device.h\"\n#include <vector>\n").empty());
  EXPECT_EQ(violations("kernels/a/a.cpp", "  # include \"engine/device.h\"\n").size(), 1u);
  EXPECT_EQ(violations("kernels/a/a.cpp", "#include \"tests/op_harness.h\"\n").size(), 1u);
  EXPECT_EQ(violations("data/a.cpp", "#include \"layers/model.h\"\n").size(), 1u);
  EXPECT_EQ(violations("layers/a.cpp", "#include \"data/images.h\"\n").size(), 1u);
  EXPECT_EQ(violations("layers/a.cpp", "#include <cudnn.h>\n#include <cublasLt.h>\n").size(), 2u);
  EXPECT_EQ(violations("engine/graph.cpp", "#include <cuda_runtime_api.h>\n").size(), 1u);
  EXPECT_EQ(violations("layers/a.cpp", "#include \"../data/images.h\"\n").size(), 1u);
  EXPECT_EQ(violations("layers/a.cpp", "#include <data/images.h>\n").size(), 1u);
  EXPECT_EQ(violations("engine/a.h", "struct A {};\n").size(), 1u);
  EXPECT_EQ(violations("tools/pictures/a.cpp", "#include \"tools/cli.h\"\n").size(), 1u);
  EXPECT_TRUE(violations("tools/pictures/a.cpp", "#include \"tools/pictures/chart.h\"\n").empty());
  EXPECT_EQ(violations("tools/report.cpp", "#include \"tools/search/arm.h\"\n").size(), 1u);
  EXPECT_TRUE(violations("tools/gm_search.cpp", "#include \"tools/search/commands.h\"\n").empty());
}

TEST(House, EveryOpFolderIsCompleteAndListed) {
  const std::vector<std::string> listed = listed_ops();
  const std::set<std::string> names(listed.begin(), listed.end());
  EXPECT_EQ(names.size(), listed.size()) << "op_list.inc names an op twice";
  EXPECT_FALSE(names.empty());
  for (const auto& entry : fs::directory_iterator(kRoot / "kernels"))
    if (entry.is_directory() && entry.path().filename() != "common")
      EXPECT_TRUE(names.count(entry.path().filename().string()))
          << "kernels/" << entry.path().filename().string() << " has no line in op_list.inc";
  for (const auto& op : listed)
    for (const char* end : {".h", ".def.cpp", "_ref.cpp", "_cpu.cpp", ".cu"}) {
      const fs::path file = kRoot / "kernels" / op / (op + end);
      EXPECT_TRUE(fs::is_regular_file(file)) << op << " lacks " << op << end;
    }
}
