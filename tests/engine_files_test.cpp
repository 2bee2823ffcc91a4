// Weight files: exact round trips, one clear line for what is wrong with a file. Schedules as pure functions.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cerrno>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>

#include "engine/atomic_file.h"
#include "engine/optimizer.h"
#include "engine/safetensors.h"
#include "engine/weight_file.h"
#include "tests/data_test_util.h"

namespace gm {
namespace {

std::string error_of(const std::function<void()>& f) {
  try {
    f();
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

TensorFile sample() {
  TensorFile f;
  f.metadata["model"] = "lines\nand \"quotes\"";
  f.tensors["a/kernel"] = StoredTensor::of(Shape{2, 3}, {1, -2, 3.5f, 1e-30f, 0, 7});
  f.tensors["empty"] = StoredTensor::of(Shape{0}, {});
  return f;
}

TEST(EngineFiles, RoundTripIsExact) {
  test::TempDir dir;
  write_safetensors(dir / "x.safetensors", sample());
  const TensorFile back = read_safetensors(dir / "x.safetensors");
  EXPECT_EQ(back.metadata, sample().metadata);
  EXPECT_EQ(back.at("a/kernel").spec.shape, (Shape{2, 3}));
  EXPECT_EQ(back.at("a/kernel").bytes, sample().at("a/kernel").bytes);
  EXPECT_TRUE(back.at("empty").bytes.empty());
}

// Other readers map the file and take the tensors where they lie.
TEST(EngineFiles, DataBeginOnAMultipleOfEightBytes) {
  test::TempDir dir;
  for (size_t extra = 0; extra < 8; ++extra) {
    TensorFile file = sample();
    file.metadata["extra"] = std::string(extra, 'x');
    write_safetensors(dir / "x.safetensors", file);
    const std::string bytes = test::read_text(dir / "x.safetensors");
    uint64_t header = 0;
    std::memcpy(&header, bytes.data(), 8);
    EXPECT_EQ(header % 8, 0u) << extra;
  }
}

TEST(EngineFiles, TypesOfOtherFrameworksAreNarrowed) {
  test::TempDir dir;
  const std::string header = R"({"half":{"dtype":"F16","shape":[7],"data_offsets":[0,14]},)"
                             R"("double":{"dtype":"F64","shape":[1],"data_offsets":[14,22]},)"
                             R"("count":{"dtype":"I64","shape":[1],"data_offsets":[22,30]}})";
  // 1, -2, the largest, the smallest normal one, the largest and the smallest below it, infinity.
  const uint16_t half[] = {0x3C00, 0xC000, 0x7BFF, 0x0400, 0x03FF, 0x8001, 0xFC00};
  const double one_third = 1. / 3;
  const int64_t count = 12345;
  const uint64_t length = header.size();
  auto raw = [](const void* from, size_t bytes) {
    return std::string(static_cast<const char*>(from), bytes);
  };
  test::write_text(dir / "x.safetensors",
                   raw(&length, 8) + header + raw(half, sizeof half) + raw(&one_third, 8) + raw(&count, 8));
  const TensorFile file = read_safetensors(dir / "x.safetensors");
  EXPECT_EQ(file.at("half").floats(),
            (std::vector<float>{1, -2, 65504, 0x1p-14f, 0x1p-14f - 0x1p-24f, -0x1p-24f, -INFINITY}));
  EXPECT_EQ(file.at("double").floats(), std::vector<float>{1.f / 3});
  int32_t narrow = 0;
  ASSERT_EQ(file.at("count").bytes.size(), sizeof narrow);
  std::memcpy(&narrow, file.at("count").bytes.data(), sizeof narrow);
  EXPECT_EQ(narrow, 12345);
}

TEST(EngineFiles, TensorsAreWrittenInPiecesAndReadOneByOne) {
  test::TempDir dir;
  std::vector<float> values(3'000'001);  // more than one piece
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i);
  size_t largest = 0;
  const TensorSource source{{Shape{static_cast<int64_t>(values.size())}, DType::f32},
                            [&](char* to, size_t offset, size_t bytes) {
                              largest = std::max(largest, bytes);
                              std::memcpy(to, reinterpret_cast<char*>(values.data()) + offset, bytes);
                            }};
  write_safetensors(dir / "x.safetensors", {{"key", "value"}}, {{"long", source}, {"other", source}});
  EXPECT_LT(largest, values.size() * sizeof(float));
  TensorReader reader(dir / "x.safetensors");
  EXPECT_EQ(reader.names(), (std::vector<std::string>{"long", "other"}));
  EXPECT_EQ(reader.metadata().at("key"), "value");
  EXPECT_EQ(reader.shape("other"), source.spec.shape);
  EXPECT_EQ(reader.read("other").floats(), values);
  EXPECT_EQ(reader.read("long").floats(), values);
  EXPECT_NE(error_of([&] { reader.read("none"); }).find("x.safetensors: tensor 'none' is missing"),
            std::string::npos);
  // A source that fails leaves no file.
  const TensorSource broken{source.spec, [](char*, size_t, size_t) { fail("no such memory"); }};
  EXPECT_EQ(error_of([&] {
              write_safetensors(dir / "y.safetensors", {}, {{"t", broken}});
            }),
            "no such memory");
  EXPECT_EQ(dir.entries(), 1u);
}

TEST(EngineFiles, EveryTruncationIsReported) {
  test::TempDir dir;
  write_safetensors(dir / "x.safetensors", sample());
  std::ifstream in(dir / "x.safetensors", std::ios::binary);
  const std::string whole((std::istreambuf_iterator<char>(in)), {});
  for (size_t n = 0; n < whole.size(); ++n) {
    test::write_text(dir / "cut.safetensors", whole.substr(0, n));
    const std::string e = error_of([&] { read_safetensors(dir / "cut.safetensors"); });
    ASSERT_NE(e.find("cut.safetensors"), std::string::npos) << n << " bytes: '" << e << "'";
    ASSERT_EQ(e.find('\n'), std::string::npos);
  }
}

TEST(EngineFiles, ForeignFilesAreRefused) {
  test::TempDir dir;
  test::write_text(dir / "a", "this is not a tensor file at all");
  EXPECT_NE(error_of([&] { read_safetensors(dir / "a"); }).find("not a safetensors file"), std::string::npos);
  EXPECT_NE(error_of([&] { read_safetensors(dir / "none"); }).find("cannot open"), std::string::npos);
  // Offsets that point past the data, or a shape that does not fit them.
  auto with_header = [&](const std::string& json) {
    const uint64_t n = json.size();
    test::write_text(dir / "b", std::string(reinterpret_cast<const char*>(&n), 8) + json + "12345678");
    return error_of([&] { read_safetensors(dir / "b"); });
  };
  EXPECT_NE(with_header(R"({"t":{"dtype":"F32","shape":[2],"data_offsets":[0,800]}})").find("'t'"),
            std::string::npos);
  EXPECT_NE(with_header(R"({"t":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}})").find("do not fit"),
            std::string::npos);
  EXPECT_NE(with_header(R"({"t":{"dtype":"Q7","shape":[2],"data_offsets":[0,8]}})").find("Q7"),
            std::string::npos);
  EXPECT_NE(with_header(R"({"t":5})").find("malformed"), std::string::npos);
  // The same bytes for two tensors; one without elements takes none.
  EXPECT_EQ(with_header(R"({"t":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
                        R"("u":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})"),
            (dir / "b") + ": tensors 't' and 'u' have bytes in common");
  EXPECT_EQ(with_header(R"({"t":{"dtype":"F32","shape":[0],"data_offsets":[4,4]},)"
                        R"("u":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})"),
            "");
  // 2^80 elements are 0 in 64 bits.
  for (const char* dims :
       {"1099511627776,1099511627776", "0,1099511627776,1099511627776", "8589934593", "-1"})
    EXPECT_NE(
        with_header(R"({"t":{"dtype":"F32","shape":[)" + std::string(dims) + R"(],"data_offsets":[0,0]}})")
            .find("b: tensor 't': its shape has too many elements"),
        std::string::npos)
        << dims;
}

TEST(EngineFiles, MetadataIsChecked) {
  const std::map<std::string, std::string> values{{"n", "-1"},       {"x", "1e-3"},
                                                  {"nan", "nan"},    {"text", "4x"},
                                                  {"none", ""},      {"huge", "99999999999999999999"},
                                                  {"list", "1 2.5 "}};
  const Metadata m("a/b", values, "not a checkpoint");
  EXPECT_EQ(m.integer("n", -1), -1);
  EXPECT_EQ(m.number("x"), 1e-3);
  EXPECT_EQ(m.numbers("list", 2), (std::vector<double>{1, 2.5}));
  for (const double x : {0.1 + 0.2, 1. / 3, 1e300})
    EXPECT_EQ(Metadata("a/b", {{"x", exact_text(x)}}, "").number("x"), x);
  EXPECT_EQ(error_of([&] { m.text("step"); }), "a/b: not a checkpoint: 'step' is missing");
  EXPECT_EQ(error_of([&] { m.integer("n"); }),
            "a/b: not a checkpoint: 'n' is '-1', not a whole number of at least 0");
  for (const char* key : {"x", "nan", "text", "none", "huge", "list"})
    EXPECT_NE(error_of([&] { m.integer(key); }).find("not a whole number"), std::string::npos) << key;
  for (const char* key : {"nan", "text", "none", "list"})
    EXPECT_NE(error_of([&] { m.number(key); }).find("not a number"), std::string::npos) << key;
  EXPECT_NE(error_of([&] { m.numbers("list", 3); }).find("has 2 numbers, not 3"), std::string::npos);
  EXPECT_NE(error_of([&] { m.numbers("text", 1); }).find("has '4x', not a number"), std::string::npos);
}

TEST(EngineFiles, LinksAreFollowedAndWhatIsNoFileIsRefused) {
  test::TempDir dir;
  namespace fs = std::filesystem;
  fs::create_directories(dir / "far");
  test::write_text(dir / "far/x.json", "old");
  fs::create_symlink("far/x.json", dir / "link.json");
  fs::create_symlink(dir / "link.json", dir / "far/second.json");
  fs::create_symlink("far/new.json", dir / "dangling.json");
  fs::create_symlink("loop.json", dir / "loop.json");
  fs::create_symlink("far", dir / "folder.json");
  ASSERT_EQ(::mkfifo((dir / "pipe.json").c_str(), 0600), 0);
  const size_t entries = dir.entries();

  write_file_atomic(dir / "link.json", "new");
  EXPECT_EQ(test::read_text(dir / "far/x.json"), "new");
  {
    PendingFile file(dir / "far/second.json");
    EXPECT_EQ(fs::path(file.name()).parent_path(), dir / "far");
    test::write_text(file.name(), "newer");
    EXPECT_EQ(test::read_text(dir / "far/x.json"), "new");
    file.commit();
  }
  EXPECT_EQ(test::read_text(dir / "far/x.json"), "newer");
  EXPECT_EQ(dir.entries(), entries);
  write_file_atomic(dir / "dangling.json", "first");
  EXPECT_EQ(test::read_text(dir / "far/new.json"), "first");
  for (const char* name : {"link.json", "far/second.json", "dangling.json"})
    EXPECT_TRUE(fs::is_symlink(dir / name)) << name;

  const std::pair<std::string, std::string> refused[] = {{dir / "far", "is a folder"},
                                                         {dir / "folder.json", "is a folder"},
                                                         {dir / "pipe.json", "is no regular file"},
                                                         {"/dev/null", "is no regular file"},
                                                         {dir / "loop.json", std::strerror(ELOOP)}};
  for (const auto& [path, reason] : refused) {
    EXPECT_EQ(error_of([&] { PendingFile file(path); }), path + ": cannot write: " + reason);
    EXPECT_EQ(error_of([&] { write_file_atomic(path, "x"); }), path + ": cannot write: " + reason);
  }
  EXPECT_EQ(dir.entries(), entries + 1);
}

// A killed process leaves its temporary files; the next one in such a container has the same number.
TEST(EngineFiles, LeftoversOfAProcessOfTheSameNumberAreNotInTheWay) {
  test::TempDir dir;
  constexpr int kMany = 2000;  // more than this program has written
  for (int serial = 0; serial < kMany; ++serial)
    test::write_text(dir / (".x.tmp" + std::to_string(::getpid()) + "_" + std::to_string(serial) + ".json"),
                     "old");
  write_file_atomic(dir / "x.json", "new");
  EXPECT_EQ(test::read_text(dir / "x.json"), "new");
  EXPECT_EQ(dir.entries(), kMany + 1u);
}

TEST(EngineFiles, TemporaryNamesAreBesideTheFileAndNeverTheSame) {
  std::set<std::string> names;
  for (int i = 0; i < 100; ++i) names.insert(temporary_name("some/run/last.safetensors"));
  EXPECT_EQ(names.size(), 100u);
  for (const std::string& name : names) {
    EXPECT_TRUE(name.starts_with("some/run/.last.tmp") && name.ends_with(".safetensors")) << name;
  }
}

TEST(EngineFiles, OnlyWhatWasInTheMakingOfTheFileIsRemoved) {
  test::TempDir dir;
  const std::string path = dir / "last.safetensors";
  const std::vector<std::string> stay{"last.safetensors",
                                      ".last.tmp0123456789abcde.safetensors",
                                      ".last.tmp0123456789abcdeg.safetensors",
                                      ".last.tmp0123456789abcdef.json",
                                      ".last.tmp0123456789abcdef.safetensors.gz",
                                      ".best.tmp0123456789abcdef.safetensors"};
  for (const std::string& name : stay) test::write_text(dir / name, "x");
  const std::vector<std::string> go{temporary_name(path), dir / ".last.tmp0123456789abcdef.safetensors"};
  for (const std::string& name : go) test::write_text(name, "x");
  remove_unfinished(path);
  for (const std::string& name : stay) EXPECT_TRUE(std::filesystem::exists(dir / name)) << name;
  for (const std::string& name : go) EXPECT_FALSE(std::filesystem::exists(name)) << name;

  // Through a link, beside what it leads to; of a folder that is not there nothing.
  std::filesystem::create_directory(dir / "other");
  std::filesystem::create_symlink("other/real.bin", dir / "link");
  test::write_text(dir / "other/.real.tmp0123456789abcdef.bin", "x");
  remove_unfinished(dir / "link");
  EXPECT_FALSE(std::filesystem::exists(dir / "other/.real.tmp0123456789abcdef.bin"));
  EXPECT_NO_THROW(remove_unfinished(dir / "none/last.safetensors"));
}

TEST(EngineFiles, WeightsOfAnotherModelChangeNothing) {
  auto device = open_device("cpu");
  ParameterTable table;
  table.add("a/kernel", Shape{2, 3}, {Initializer::ones}, true, true);
  table.add("b/bias", Shape{4}, {Initializer::ones}, true, false);
  Weights w(*device, table, false, false);
  w.initialize(table, 0);
  EXPECT_NE(error_of([&] { load_weights(sample(), table, w); }).find("b/bias"), std::string::npos);
  EXPECT_EQ(w.download(table[0]), std::vector<float>(6, 1.f))
      << "a refused file must leave the weights alone";
}

// reference: Keras's legacy decay, lr .01 and decay .001 at 222 steps an epoch.
TEST(EngineSchedule, KerasDecay) {
  const ScheduleConfig s{.kind = ScheduleConfig::keras_decay, .decay = 1e-3};
  EXPECT_DOUBLE_EQ(learning_rate(s, 0.01, 0, 0, 1), 0.01);
  EXPECT_NEAR(learning_rate(s, 0.01, 222, 0, 1), 0.0082, 5e-5);
  EXPECT_NEAR(learning_rate(s, 0.01, 5 * 222, 0, 1), 0.0047, 5e-5);
  EXPECT_NEAR(learning_rate(s, 0.01, 50 * 222, 0, 1), 0.00083, 5e-6);
  EXPECT_DOUBLE_EQ(learning_rate(s, 0.01, 499, 500, 1), 0.01);
  EXPECT_DOUBLE_EQ(learning_rate(s, 0.01, 500, 500, 1), 0.01) << "no jump behind the warm-up";
  EXPECT_DOUBLE_EQ(learning_rate(s, 0.01, 722, 500, 1), learning_rate(s, 0.01, 222, 0, 1));
}

TEST(EngineSchedule, WarmUpThenCosine) {
  const ScheduleConfig s{.kind = ScheduleConfig::cosine, .final_fraction = 0.1};
  EXPECT_DOUBLE_EQ(learning_rate(s, 1, 0, 10, 110), 0.1);
  EXPECT_DOUBLE_EQ(learning_rate(s, 1, 9, 10, 110), 1.0);
  EXPECT_DOUBLE_EQ(learning_rate(s, 1, 10, 10, 110), 1.0);
  EXPECT_NEAR(learning_rate(s, 1, 60, 10, 110), 0.55, 1e-12);
  EXPECT_NEAR(learning_rate(s, 1, 110, 10, 110), 0.1, 1e-12);
}

}  // namespace
}  // namespace gm
