// A run of gm_infer that does not end keeps its rows, and another one goes on to the rows of an unbroken run.
#include <set>

#include "data/csv.h"
#include "data/hdf5_util.h"
#include "tests/cli_fixture.h"
#include "tools/kept_predictions.h"

namespace gm {
namespace {

namespace fs = std::filesystem;
using test::expect_failure;
using test::expect_success;
using test::Ran;
using test::read_text;
using test::write_text;

bool with_fits() {
  test::TempDir dir;
  try {
    open_predictions(dir / "x.fits", {"a"}, {});
  } catch (const Error&) {
    return false;
  }
  return true;
}
std::vector<std::string> endings() {
  std::vector<std::string> all{".csv", ".h5"};
  if (with_fits()) all.push_back(".fits");
  return all;
}

/// What a file of predictions says; when it was written is left out.
std::string content(const std::string& path) {
  if (path.ends_with(".fits")) {
    std::string file = read_text(path), text;
    constexpr size_t kCard = 80;
    for (size_t at = 0; at < file.size(); at += kCard)
      if (file.compare(at, 4, "DATE") != 0 && file.compare(at, 8, "CHECKSUM") != 0 &&
          file.compare(at, 7, "DATASUM") != 0)
        text += file.substr(at, kCard);
    return text;
  }
  if (!path.ends_with(".h5")) return read_text(path);
  std::string text;
  h5::Lock lock;
  const h5::Handle file = h5::open_file(path);
  for (const auto& name : h5::read_string_attribute(file, "class_names")) text += name + "\n";
  for (const char* name : {"id_str", "class", "probabilities", "logits"}) {
    const h5::Handle set = h5::open_dataset(file, name), type = h5::type_of(set);
    const std::vector<hsize_t> shape = h5::shape_of(set);
    text += name + h5::shape_text(shape);
    if (H5Tget_class(type) == H5T_STRING) {
      for (const auto& id : h5::read_strings(set, false)) text += id + "\n";
      continue;
    }
    size_t bytes = H5Tget_size(type);
    for (hsize_t n : shape) bytes *= n;
    std::string values(bytes, 0);
    EXPECT_GE(H5Dread(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()), 0);
    text += values;
  }
  return text;
}

class KeptRows : public test::Cli {
 protected:
  /// An image of the set that cannot be read, or can again.
  void spoil(int i) { write_text(dir / ("set/images/g" + std::to_string(i) + ".png"), "no picture"); }
  void mend(int i) { write_image(dir / ("set/images/g" + std::to_string(i) + ".png"), picture(i)); }
  static Image picture(int i) { return test::gradient(32, 32, i * 10); }
  Ran infer_to(const std::string& out, std::vector<std::string> more = {},
               const test::Process::Options& options = {}) {
    more.insert(more.begin(), {data, "--logits", "--out", dir / out});
    if (std::find(more.begin(), more.end(), "--batch") == more.end())
      more.insert(more.end(), {"--batch", "3"});
    return infer(more, options);
  }
  void expect_no_rest(const std::string& end) {
    EXPECT_FALSE(fs::exists(dir / ("p.partial" + end)));
    EXPECT_FALSE(fs::exists(dir / ("p.partial" + end + ".json")));
    expect_nothing_written();
  }
};

TEST_F(KeptRows, OfARunThatFailsAreGoneOnFrom) {
  for (const std::string& end : endings()) {
    SCOPED_TRACE(end);
    const std::string p = dir / ("p" + end), partial = dir / ("p.partial" + end);
    expect_success(infer_to("whole" + end));
    write_text(p, "of an earlier run");
    spoil(7);
    spoil(13);
    expect_failure(infer_to("p" + end, {"--strict"}), 1,
                   {"g7.png", "; " + partial + " holds the rows of the first 6 of 20 images; ", "--resume"});
    mend(7);
    const std::string first = content(partial);
    expect_failure(infer_to("p" + end, {"--strict", "--resume"}), 1,
                   {"g13.png", "; " + partial + " holds the rows of the first 12 of 20 images; "});
    EXPECT_NE(content(partial), first);
    EXPECT_EQ(read_text(p), "of an earlier run");
    // No further than before.
    const std::string second = read_text(partial);
    expect_failure(infer_to("p" + end, {"--strict", "--resume"}), 1,
                   {"g13.png", partial + " holds the rows of the first 12 of 20 images; "});
    EXPECT_EQ(read_text(partial), second);
    mend(13);
    expect_success(infer_to("p" + end, {"--strict", "--resume"}));
    EXPECT_TRUE(content(p) == content(dir / ("whole" + end)));
    expect_no_rest(end);
  }
}

// The file of a partial run is one that any reader takes: whole rows under the header of the finished one.
TEST_F(KeptRows, AreAFileOfTheirOwn) {
  spoil(13);
  for (const std::string& end : endings())
    expect_failure(infer_to("p" + end, {"--strict"}), 1, {"g13.png", "first 12 of 20"});
  mend(13);
  expect_success(infer_to("whole.csv"));
  const std::string whole = read_text(dir / "whole.csv"), kept = read_text(dir / "p.partial.csv");
  EXPECT_EQ(kept, whole.substr(0, kept.size()));
  EXPECT_EQ(CsvTable(dir / "p.partial.csv").rows(), 12);
  h5::Lock lock;
  const h5::Handle file = h5::open_file(dir / "p.partial.h5");
  EXPECT_EQ(h5::shape_of(h5::open_dataset(file, "probabilities")), (std::vector<hsize_t>{12, 5}));
}

// Wherever the disk is full, behind unreadable images too, with ids that come twice.
TEST_F(KeptRows, OfAFullDiskEndWithABatch) {
  std::string csv = "id_str,file_loc\n";
  for (int i = 0; i < 20; ++i)  // longer than what is said of images, which is limited too
    csv += std::string(200, 'g') + std::to_string(i) + ",images/g" + std::to_string(i) + ".png\n";
  write_text(dir / "set/labels.csv", csv);
  const std::vector<int> bad{7, 8, 12, 13, 14};
  for (int i : bad) spoil(i);
  const Ran whole = infer_to("whole.csv", {data});
  expect_success(whole);
  const std::string text = read_text(dir / "whole.csv");
  std::set<int64_t> kept;
  for (long limit = 1600; limit < static_cast<long>(text.size()); limit += 400) {
    SCOPED_TRACE(limit);
    const Ran stopped = infer_to("p.csv", {data}, {.file_limit = limit});
    const std::string last = stopped.err.substr(stopped.err.rfind("gm_infer: "));
    expect_failure({"gm_infer", stopped.code, "", last}, 1, {dir / "p.csv", "File too large"});
    EXPECT_FALSE(fs::exists(dir / "p.csv"));
    expect_nothing_written();
    if (!fs::exists(dir / "p.partial.csv")) continue;
    const std::string rows = read_text(dir / "p.partial.csv");
    EXPECT_EQ(rows, text.substr(0, rows.size()));
    kept.insert(CsvTable(dir / "p.partial.csv").rows());
    const Ran rest = infer_to("p.csv", {data, "--resume"});
    expect_success(rest);
    EXPECT_EQ(read_text(dir / "p.csv"), text);
    const std::string before = "the rows of the first ";
    const int64_t first = std::stol(last.substr(last.find(before) + before.size()));
    EXPECT_EQ(first % 3, 0);
    EXPECT_TRUE(whole.err.ends_with(rest.err)) << rest.err;
    int64_t left = 0;
    for (int i : bad) left += (i >= first) + (20 + i >= first);
    EXPECT_EQ(std::count(rest.err.begin(), rest.err.end(), '\n'), left) << rest.err;
    expect_no_rest(".csv");
    fs::remove(dir / "p.csv");
  }
  EXPECT_GE(kept.size(), 8u) << "stops at different batches";
  EXPECT_TRUE(kept.count(7)) << "a stop behind 7 and 8";
}

TEST_F(KeptRows, GoOnInTheSameRunOnly) {
  const std::string partial = dir / "p.partial.csv", record = partial + ".json", other = dir / "other.st";
  expect_failure(infer_to("p.csv", {"--resume"}), 1, {partial, "not there to resume from"});
  expect_failure(infer({data, "--resume"}), 2, {"--resume needs --out"});
  spoil(13);
  expect_failure(infer_to("p.csv", {"--strict"}), 1, {"g13.png"});
  mend(13);
  const std::string kept = read_text(partial), noted = read_text(record);
  expect_failure(infer_to("p.csv"), 1, {partial, "did not end", "--resume"});
  auto refused = [&](const std::vector<std::string>& more, const std::string& what) {
    std::vector<std::string> args{"--resume"};
    args.insert(args.end(), more.begin(), more.end());
    expect_failure(infer_to("p.csv", args), 1, {partial, what});
  };
  refused({data}, "other images");
  refused({"--tta"}, "--tta is off there and on here");
  refused({"--precision", "bf16"}, "--precision is f32 there and bf16 here");
  refused({"--mc-dropout", "3"}, "--mc-dropout is off there and 3 here");
  expect_failure(infer({data, "--out", dir / "p.csv", "--resume"}), 1,
                 {partial, "--logits is on there and off here"});
  // Another order.
  const std::string catalog = read_text(dir / "set/labels.csv");
  std::string turned = catalog;
  turned.replace(turned.find("g18,images/g18"), 14, "g19,images/g19");
  turned.replace(turned.rfind("g19,images/g19"), 14, "g18,images/g18");
  write_text(dir / "set/labels.csv", turned);
  refused({}, "another order");
  write_text(dir / "set/labels.csv", catalog);
  // Another model.
  const std::string weights = read_text(model);
  TensorFile file = read_safetensors(model);
  file.tensors["predictions/bias"] = StoredTensor::of({5}, {0, 0, 1, 0, 0});
  write_safetensors(model, file);
  refused({}, "another model");
  write_text(model, weights);
  // Files that are not as they were left.
  write_text(partial, kept + "g12,round,1,0,0,0,0,1,1,1,1,1\n");
  refused({}, "not as the run left it");
  write_text(partial, kept);
  for (const char* text : {"", "{}", "no record", R"({"images": 12})"}) {
    write_text(record, text);
    expect_failure(infer_to("p.csv", {"--resume"}), 1, {record, "is damaged"});
  }
  fs::remove(record);
  expect_failure(infer_to("p.csv", {"--resume"}), 1, {record});
  write_text(record, noted);
  EXPECT_FALSE(fs::exists(dir / "p.csv"));
  expect_nothing_written();
  EXPECT_EQ(read_text(partial), kept);
  // As many images a step as memory holds, and where the images lie, are free.
  fs::rename(dir / "set", dir / "elsewhere");
  expect_success(infer({dir / "elsewhere", "--logits", "--out", dir / "p.csv", "--resume", "--batch", "64"}));
  expect_success(infer({dir / "elsewhere", "--logits", "--out", dir / "whole.csv"}));
  EXPECT_EQ(read_text(dir / "p.csv"), read_text(dir / "whole.csv"));
  expect_no_rest(".csv");
}

// A signal may come behind the last batch.
TEST_F(KeptRows, OfAllImagesBecomeTheFile) {
  const std::string partial = dir / "p.partial.csv", record = partial + ".json";
  expect_success(infer_to("whole.csv"));
  spoil(13);
  expect_failure(infer_to("p.csv", {"--strict"}), 1, {"g13.png"});
  mend(13);
  std::string text = read_text(record);
  for (const auto& [from, to] :
       {std::pair{std::string("12"), std::string("20")},
        std::pair{std::to_string(fs::file_size(partial)), std::to_string(fs::file_size(dir / "whole.csv"))}})
    text.replace(text.find(": " + from + ",") + 2, from.size(), to);
  write_text(record, text);
  fs::copy_file(dir / "whole.csv", partial, fs::copy_options::overwrite_existing);
  expect_success(infer_to("p.csv", {"--resume"}));
  EXPECT_EQ(read_text(dir / "p.csv"), read_text(dir / "whole.csv"));
  expect_no_rest(".csv");
}

// They are rows of the file, and a catalog may have been mended in the meantime.
TEST_F(KeptRows, KnowThePositionsOfTheirImages) {
  auto write_catalog = [&](const char* dec) {
    std::string csv = "id_str,file_loc,ra,dec\n";
    for (int i = 0; i < 20; ++i) {
      const std::string g = "g" + std::to_string(i);
      csv += g + ",images/" + g + ".png," + std::to_string(i) + "," + (i == 3 ? dec : "-5.5") + "\n";
    }
    write_text(dir / "set/labels.csv", csv);
  };
  write_catalog("-5.5");
  spoil(13);
  expect_failure(infer_to("p.csv", {"--strict"}), 1, {"g13.png"});
  mend(13);
  for (const char* dec : {"5.5", ""}) {
    write_catalog(dec);
    expect_failure(infer_to("p.csv", {"--resume"}), 1, {dir / "p.partial.csv", "other images"});
  }
  write_catalog("-5.5");
  expect_success(infer_to("p.csv", {"--resume"}));
}

// Ids of HDF5 files may be row numbers, the same in every file.
TEST_F(KeptRows, TellHdf5FilesApartByTheirNames) {
  Ran packed = test::run("gm_data", {"pack", data, "--quiet", "--out", dir / "a.h5"});
  expect_success(packed);
  fs::copy_file(dir / "a.h5", dir / "b.h5");
  auto to = [&](const std::string& input, const std::vector<std::string>& more,
                const test::Process::Options& options) {
    std::vector<std::string> args{dir / input, "--batch", "3", "--out", dir / "p.csv"};
    args.insert(args.end(), more.begin(), more.end());
    return infer(args, options);
  };
  expect_failure(to("a.h5", {}, {.file_limit = 900}), 1, {"File too large", "p.partial.csv holds"});
  expect_failure(to("b.h5", {"--resume"}, {}), 1, {"p.partial.csv", "other images"});
  expect_success(to("a.h5", {"--resume"}, {}));
}

// What a kill or a power cut leaves is what was saved before.
TEST_F(KeptRows, AreSavedNowAndThen) {
  const std::vector<std::string> classes{"smooth", "disk"};
  auto rows_of = [](int first, int count) {
    std::vector<Prediction> rows;
    for (int i = first; i < first + count; ++i) {
      const double p = 1.0 / (i + 3);
      rows.push_back({.id = "galaxy" + std::to_string(i),
                      .probabilities = {p, 1 - p},
                      .logits = {static_cast<float>(i), 0.25f}});
    }
    return rows;
  };
  const KeptPredictions::Traits traits{{"model", "m"}, {"images", "i"}};
  for (const std::string& end : endings()) {
    SCOPED_TRACE(end);
    auto open = [&](const std::string& name, bool resume, double save_every) {
      return KeptPredictions(dir / (name + end), classes, {.logits = true},
                             {.traits = traits, .total = 1000, .resume = resume, .save_every = save_every});
    };
    const std::string partial = dir / ("p.partial" + end);
    int kept = 0;
    {
      KeptPredictions whole = open("whole", false, 1e9);
      whole.write(rows_of(0, 1000), 1000);
      EXPECT_FALSE(fs::exists(dir / ("whole.partial" + end)));
      whole.finish();
    }
    {
      KeptPredictions killed = open("p", false, 0);
      killed.write(rows_of(0, 400), 400);
      const std::string saved = content(partial);  // a whole file while the run goes on
      EXPECT_NE(saved.find("galaxy399"), std::string::npos);
      const std::string record = read_text(partial + ".json");
      for (kept = 400; kept < 800 && read_text(partial + ".json") == record; ++kept) {
        ::usleep(10000);  // copies must not take most of the time
        killed.write(rows_of(kept, 1), kept + 1);
      }
      EXPECT_NE(content(partial), saved);
      killed.write(rows_of(kept, 1), kept + 1);
    }
    {
      KeptPredictions killed = open("p", true, 1e9);  // before it saves
      ASSERT_GE(killed.first(), kept);
      kept = static_cast<int>(killed.first());
      killed.write(rows_of(kept, 50), kept + 50);
    }
    KeptPredictions again = open("p", true, 0);
    ASSERT_EQ(again.first(), kept);
    again.write(rows_of(kept, 50), kept + 50);
    again.write(rows_of(kept + 50, 950 - kept), 1000);
    again.finish();
    EXPECT_TRUE(content(dir / ("p" + end)) == content(dir / ("whole" + end)));
    expect_no_rest(end);
  }
}

}  // namespace
}  // namespace gm
