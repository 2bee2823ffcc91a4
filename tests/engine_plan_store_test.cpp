// Which plan of a library a problem gets, and the file that keeps it: all of it but the timing itself.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <limits>
#include <optional>
#include <set>

#include "engine/atomic_file.h"
#include "engine/plan_store.h"
#include "kernels/common/error.h"
#include "kernels/conv2d/conv2d_cudnn.h"
#include "kernels/linear/gemm_problem.h"

namespace gm::test {

namespace {

namespace fs = std::filesystem;

const char kOrigin[] = "NVIDIA A100-SXM4-80GB, sm_80, 108 processors, cuDNN 9.19.0, cuBLASLt 13.1.0";

class Folder {
 public:
  Folder() : path(testing::TempDir() + "gm_plans_" + std::to_string(::getpid())) { fs::remove_all(path); }
  ~Folder() { fs::remove_all(path); }
  const std::string path;
};
PlanChoices choices(std::initializer_list<std::pair<const char*, const char*>> all) {
  PlanChoices made;
  for (const auto& [problem, candidate] : all) made.choose(problem, candidate);
  return made;
}
std::string chosen(const PlanChoices& c, const std::string& problem) {
  const std::string* candidate = c.find(problem);
  return candidate ? *candidate : "nothing";
}
std::string refusal(const std::string& text) {
  try {
    PlanChoices::parse(text, kOrigin);
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}
template <class F>
std::string on_stderr(F&& f) {
  testing::internal::CaptureStderr();
  f();
  return testing::internal::GetCapturedStderr();
}
int64_t lines(const std::string& text) { return std::count(text.begin(), text.end(), '\n'); }

// Sets a variable of the environment, or removes it, until the end of the scope.
class Variable {
 public:
  Variable(const char* name, const char* value) : name_(name) {
    if (const char* before = std::getenv(name)) before_ = before;
    value ? ::setenv(name, value, 1) : ::unsetenv(name);
  }
  ~Variable() { before_ ? ::setenv(name_, before_->c_str(), 1) : ::unsetenv(name_); }

 private:
  const char* name_;
  std::optional<std::string> before_;
};

}  // namespace

TEST(EnginePlanStore, TheFastestWinsAndTheLibrarysOrderBreaksTies) {
  const double never = std::numeric_limits<double>::infinity();
  EXPECT_EQ(fastest_candidate({3e-3, 1e-3, 2e-3}), 1u);
  EXPECT_EQ(fastest_candidate({1.019e-3, 1e-3}), 0u);  // nearer than the clock can tell
  EXPECT_EQ(fastest_candidate({1.03e-3, 1e-3}), 1u);
  EXPECT_EQ(fastest_candidate({never, 1e-3, never}), 1u);
  EXPECT_EQ(fastest_candidate({never, never}), kNoCandidate);
  EXPECT_EQ(fastest_candidate({}), kNoCandidate);
}

TEST(EnginePlanStore, KeysTellProblemsApart) {
  using cuda::CudnnGraph;
  cuda::CudnnQuestion q{.graph = CudnnGraph::forward,
                        .g = {.n = 1, .h = 2, .w = 3, .c = 4, .k = 5, .kernel = 6, .stride = 7}};
  std::set<std::string> keys{plan_key(q)};
  size_t asked = 1;
  auto changed = [&](auto change) {
    cuda::CudnnQuestion other = q;
    change(other);
    keys.insert(plan_key(other)), ++asked;
  };
  changed([](auto& o) { o.graph = CudnnGraph::backward_data; });
  changed([](auto& o) { o.bias = true; });
  changed([](auto& o) { o.residual = true; });
  changed([](auto& o) { o.act = Act::silu; });
  changed([](auto& o) { o.deterministic = false; });
  changed([](auto& o) { o.tf32 = true; });
  changed([](auto& o) { o.g.dtype = DType::bf16; });
  for (auto field : {&ConvGeometry::n, &ConvGeometry::h, &ConvGeometry::w, &ConvGeometry::c, &ConvGeometry::k,
                     &ConvGeometry::kernel, &ConvGeometry::stride, &ConvGeometry::pad_top,
                     &ConvGeometry::pad_left, &ConvGeometry::pad_bottom, &ConvGeometry::pad_right})
    changed([&](auto& o) { o.g.*field += 10; });
  EXPECT_EQ(keys.size(), asked);

  const GemmProblem p{false, false, 1, 2, 3, 4, 5, 6, DType::f32, DType::f32, false, false};
  keys = {plan_key(p, false), plan_key(p, true)};
  asked = 2;
  auto other_product = [&](auto change) {
    GemmProblem other = p;
    change(other);
    keys.insert(plan_key(other, false)), ++asked;
  };
  for (auto field : {&GemmProblem::m, &GemmProblem::n, &GemmProblem::k, &GemmProblem::lda, &GemmProblem::ldb,
                     &GemmProblem::ldd})
    other_product([&](auto& o) { o.*field += 10; });
  for (auto field :
       {&GemmProblem::transpose_a, &GemmProblem::transpose_b, &GemmProblem::accumulate, &GemmProblem::bias})
    other_product([&](auto& o) { o.*field = true; });
  for (auto field : {&GemmProblem::operands, &GemmProblem::result})
    other_product([&](auto& o) { o.*field = DType::bf16; });
  EXPECT_EQ(keys.size(), asked);
}

TEST(EnginePlanStore, WhichConvolutionsAreProducts) {
  using cuda::CudnnGraph;
  const cuda::CudnnQuestion q{.graph = CudnnGraph::forward,
                              .g = {.n = 2, .h = 7, .w = 7, .c = 8, .k = 16, .kernel = 1}};
  auto product = [&](auto change) {
    cuda::CudnnQuestion other = q;
    change(other);
    return is_product(other);
  };
  EXPECT_TRUE(is_product(q));
  EXPECT_TRUE(product([](auto& o) { o.graph = CudnnGraph::forward_epilogue, o.bias = true; }));
  EXPECT_TRUE(product([](auto& o) { o.graph = CudnnGraph::backward_data_add; }));
  EXPECT_TRUE(product([](auto& o) { o.graph = CudnnGraph::weights_same; }));
  EXPECT_FALSE(product([](auto& o) { o.graph = CudnnGraph::weights_same, o.g.dtype = DType::bf16; }));
  EXPECT_FALSE(product([](auto& o) { o.graph = CudnnGraph::forward_epilogue, o.act = Act::silu; }));
  EXPECT_FALSE(product([](auto& o) { o.graph = CudnnGraph::forward_epilogue, o.residual = true; }));
  EXPECT_FALSE(product([](auto& o) { o.g.stride = 2; }));
  EXPECT_FALSE(product([](auto& o) { o.g.kernel = 3; }));
}

TEST(EnginePlanStore, AnAlgorithmReadsBack) {
  const uint64_t words[] = {0, 1, 0xffffffffffffffff, 0x0123456789abcdef};
  const std::string name = algorithm_name(words);
  EXPECT_EQ(name, "algorithm 0 1 ffffffffffffffff 123456789abcdef");
  uint64_t read[4] = {};
  ASSERT_TRUE(read_algorithm(name, read));
  EXPECT_TRUE(std::equal(words, words + 4, read));
  uint64_t three[3], five[5];
  EXPECT_FALSE(read_algorithm(name, three));
  EXPECT_FALSE(read_algorithm(name, five));
  EXPECT_FALSE(read_algorithm("engine 1:", read));
  EXPECT_FALSE(read_algorithm("algorithm 0 1 2 what", read));
}

TEST(EnginePlanStore, ATextReadsBackAndADamagedOneIsRefused) {
  const std::string text =
      choices({{"conv 1 2", "engine 45: 2=1 7=3"}, {"gemm 3", "algorithm 0 f"}}).text(kOrigin);
  const PlanChoices read = PlanChoices::parse(text, kOrigin);
  EXPECT_EQ(read.size(), 2u);
  EXPECT_EQ(chosen(read, "conv 1 2"), "engine 45: 2=1 7=3");
  EXPECT_EQ(chosen(read, "gemm 3"), "algorithm 0 f");
  EXPECT_FALSE(read.unsaved());
  EXPECT_EQ(PlanChoices::parse(PlanChoices().text(kOrigin), kOrigin).size(), 0u);

  for (size_t length = 0; length + 1 < text.size(); ++length)
    EXPECT_NE(refusal(text.substr(0, length)), "") << length << " bytes of it";
  EXPECT_EQ(refusal("PNG\n" + text), "not a file of plans");
  std::string other = text;
  other.replace(other.find("A100"), 4, "H100");
  EXPECT_NE(refusal(other).find("not of 'NVIDIA A100"), std::string::npos) << refusal(other);
  other = text;
  other.replace(other.find(" -> engine"), 4, " -- ");
  EXPECT_EQ(refusal(other), "line 3 names no plan");
  other = text;
  other.erase(other.find("gemm"), other.find("end") - other.find("gemm"));
  EXPECT_NE(refusal(other), "");
}

TEST(EnginePlanStore, TheNextProcessTakesWhatWasChosen) {
  const Folder folder;
  PlanStore store(folder.path + "/deep/inside", kOrigin);
  EXPECT_EQ(on_stderr([&] { EXPECT_EQ(store.read().size(), 0u); }), "");  // no file yet: nothing to say
  PlanChoices mine = choices({{"conv 1", "engine 1:"}});
  ASSERT_TRUE(mine.unsaved());
  store.write(mine);
  EXPECT_FALSE(mine.unsaved());
  EXPECT_EQ(chosen(PlanStore(folder.path + "/deep/inside", kOrigin).read(), "conv 1"), "engine 1:");
  EXPECT_EQ(fs::path(store.path()).filename(),
            "NVIDIA-A100-SXM4-80GB-sm_80-108-processors-cuDNN-9.19.0-cuBLASLt-13.1.0.txt");
  // Another card or library has a file of its own.
  EXPECT_EQ(PlanStore(folder.path + "/deep/inside", "another card").read().size(), 0u);
}

TEST(EnginePlanStore, WhoChoseFirstHasFixedTheChoice) {
  const Folder folder;
  PlanStore store(folder.path, kOrigin);
  PlanChoices first = choices({{"conv 1", "engine 1:"}, {"conv 2", "engine 2:"}}),
              second = choices({{"conv 1", "engine 9:"}, {"conv 3", "engine 3:"}});
  EXPECT_EQ(on_stderr([&] { store.write(first); }), "");
  EXPECT_PRED_FORMAT2(testing::IsSubstring, "another process chose 1 plans differently",
                      on_stderr([&] { store.write(second); }));
  EXPECT_EQ(on_stderr([&] { store.write(second); }), "") << "said once";
  PlanChoices read = store.read();
  EXPECT_EQ(chosen(read, "conv 1"), "engine 1:");
  EXPECT_EQ(chosen(read, "conv 2"), "engine 2:");
  EXPECT_EQ(chosen(read, "conv 3"), "engine 3:");
  // A candidate that the library no longer offers does not come back.
  read.forget("conv 1");
  EXPECT_EQ(read.find("conv 1"), nullptr);
  read.choose("conv 1", "engine 5:");
  store.write(read);
  EXPECT_EQ(chosen(store.read(), "conv 1"), "engine 5:");
}

TEST(EnginePlanStore, ADamagedFileIsOneLineAndThenReplaced) {
  const Folder folder;
  PlanStore store(folder.path, kOrigin);
  PlanChoices mine = choices({{"conv 1", "engine 1:"}});
  store.write(mine);
  write_file_atomic(store.path(), read_file(store.path()).substr(0, 100));
  PlanChoices read = choices({{"conv 7", "engine 7:"}});
  const std::string said = on_stderr([&] { read = store.read(); });
  EXPECT_EQ(read.size(), 0u);
  EXPECT_EQ(lines(said), 1) << said;
  EXPECT_NE(said.find(store.path() + ": "), std::string::npos) << said;
  EXPECT_NE(said.find("timed anew"), std::string::npos) << said;
  read.choose("conv 2", "engine 2:");
  EXPECT_EQ(on_stderr([&] { store.write(read); }), "");
  EXPECT_EQ(chosen(store.read(), "conv 2"), "engine 2:");
}

TEST(EnginePlanStore, AFolderThatCannotBeWrittenIsOneLineOnce) {
  const Folder folder;
  fs::create_directories(folder.path);
  write_file_atomic(folder.path + "/file", std::string("no folder"));
  PlanStore store(folder.path + "/file/plans", kOrigin);
  PlanChoices mine = choices({{"conv 1", "engine 1:"}});
  const std::string said = on_stderr([&] {
    store.write(mine);
    mine.choose("conv 2", "engine 2:");
    store.write(mine);
  });
  EXPECT_EQ(lines(said), 1) << said;
  EXPECT_NE(said.find("cannot write"), std::string::npos) << said;
  EXPECT_FALSE(mine.unsaved());
}

TEST(EnginePlanStore, WhereTheFileLies) {
  const Variable plans("GM_PLAN_CACHE", nullptr), cache("XDG_CACHE_HOME", nullptr), home("HOME", "/at home");
  EXPECT_EQ(plan_cache_folder(), "/at home/.cache/galaxy_morphology");
  const Variable elsewhere("XDG_CACHE_HOME", "/var/cache/me");
  EXPECT_EQ(plan_cache_folder(), "/var/cache/me/galaxy_morphology");
  {
    const Variable wish("GM_PLAN_CACHE", "/data/plans");
    EXPECT_EQ(plan_cache_folder(), "/data/plans");
  }
  const Variable off("GM_PLAN_CACHE", "off");
  EXPECT_EQ(plan_cache_folder(), "");
}

}  // namespace gm::test
