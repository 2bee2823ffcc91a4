// Outputs are whole or absent, and replace nothing that was an input.
#include "data/csv.h"
#include "tests/cli_fixture.h"

namespace gm {
namespace {

namespace fs = std::filesystem;
using test::Cli;
using test::expect_failure;
using test::expect_success;
using test::read_text;
using test::run;
using test::write_text;

TEST_F(Cli, MessagesToAClosedStreamDoNotGoIntoResults) {
  const std::vector<std::string> args{data, "--model", model, "--device", "cpu", "--out"};
  auto infer_to = [&](const std::string& file, bool no_err) {
    std::vector<std::string> all = args;
    all.push_back(dir / file);
    expect_success(run("gm_infer", all, {.no_err = no_err}));
    return read_text(dir / file);
  };
  EXPECT_EQ(infer_to("closed.csv", true), infer_to("open.csv", false));
}

TEST_F(Cli, MessagesThatCannotBeWrittenCostNoResults) {
  write_text(dir / "set/images/bad.png", "no picture");  // skipped, which is a message too
  const test::Process::Options full{.err = "/dev/full"};
  auto succeeds = [&](const std::string& tool, const std::vector<std::string>& args,
                      const std::string& file) {
    EXPECT_EQ(run(tool, args, full).code, 0) << tool;
    EXPECT_TRUE(fs::exists(file)) << file;
  };
  succeeds("gm_infer", {dir / "set/images", "--model", model, "--out", dir / "p.csv"}, dir / "p.csv");
  succeeds("gm_eval", {"--data", data, "--model", model, "--out", dir / "e"}, dir / "e/report.html");
  succeeds("gm_explain", {good, "--model", model, "--method", "saliency", "--out", dir / "x"},
           dir / "x/explain.h5");
}

TEST_F(Cli, ARunWithItsBestWeightsAloneIsKept) {
  expect_success(train({"--data", data, "--epochs", "1", "--batch", "4"}));
  fs::remove(out + "/last.safetensors");
  const std::string best = read_text(out + "/best.safetensors");
  expect_failure(train({"--data", data, "--epochs", "1", "--batch", "4"}), 1,
                 {out, "already holds a run (best.safetensors)"});
  // Its own configuration, to be trained in its own folder: --resume was forgotten.
  expect_failure(run("gm_train", {out + "/config.yaml", "--data", data, "--out", out}), 1,
                 {out, "already holds a run (best.safetensors); continue it with --resume"});
  EXPECT_EQ(read_text(out + "/best.safetensors"), best);
}

TEST_F(Cli, UnwritablePlaces) {
  // A path below a regular file cannot be written, not even by root.
  const std::string below = good + "/x";
  expect_failure(run("gm_train", {config, "--data", data, "--out", below, "--quiet"}), 1, {below});
  for (const char* end : {".csv", ".h5"})
    expect_failure(infer({good, "--out", below + end}), 1, {below + end, "cannot write"});
  expect_failure(infer({good, "--out", dir / "p.txt"}), 1, {"p.txt", ".csv, .h5 or .fits"});
  expect_failure(run("gm_data", {"synth", "--count", "2", "--size", "16", "--quiet", "--out", below}), 1,
                 {below});
  expect_failure(run("gm_data", {"synth", "--count", "2", "--size", "16", "--quiet", "--out", below + ".h5"}),
                 1, {below + ".h5"});
  expect_failure(run("gm_data", {"pack", data, "--quiet", "--out", below + ".h5"}), 1, {below + ".h5"});
  expect_nothing_written();
}

// An unreadable image would be reported before it.
TEST_F(Cli, OutputsThatAreNoFilesAreRefusedBeforeTheFirstImage) {
  write_text(dir / "set/images/bad.png", "no picture");
  for (const char* end : {".csv", ".h5", ".fits"}) {
    const std::string name = dir / ("folder" + std::string(end));
    fs::create_directory(name);
    const test::Ran r = infer({dir / "set/images", "--out", name});
    if (r.err.find("without CFITSIO") == std::string::npos) expect_failure(r, 1, {name, "is a folder"});
  }
  expect_failure(run("gm_data", {"pack", data, "--quiet", "--out", dir / "folder.h5"}), 1, {"is a folder"});
  expect_nothing_written();
}

TEST_F(Cli, FullDisk) {
  const test::Process::Options full{.file_limit = 512}, roomy{.file_limit = 4096};
  expect_failure(infer({data, "--out", dir / "p.csv"}, full), 1, {dir / "p.csv", "File too large"});
  EXPECT_FALSE(fs::exists(dir / "p.csv"));
  expect_failure(infer({data, "--out", dir / "p.h5"}, full), 1, {dir / "p.h5"});
  EXPECT_FALSE(fs::exists(dir / "p.h5"));
  expect_failure(infer({data}, {.out = "/dev/full"}), 1, {"cannot write to standard output: No space left"});
  expect_failure(run("gm_data", {"pack", data, "--quiet", "--out", dir / "d.h5"}, roomy), 1, {dir / "d.h5"});
  EXPECT_FALSE(fs::exists(dir / "d.h5"));
  expect_failure(
      run("gm_data", {"synth", "--quiet", "--count", "4", "--size", "64", "--out", dir / "s"}, full), 1,
      {dir / "s/images", "File too large"});
  EXPECT_FALSE(fs::exists(dir / "s/labels.csv"));
  expect_nothing_written();
}

TEST_F(Cli, OutputsThatWouldReplaceInputs) {
  const std::string catalog = dir / "set/labels.csv", other_name = dir / "link.csv",
                    before = read_text(catalog);
  fs::create_hard_link(catalog, other_name);
  for (const std::string& name : {catalog, other_name})
    expect_failure(infer({data, "--out", name}), 1, {name, "is an input"});
  expect_failure(infer({catalog, "--out", catalog}), 1, {catalog, "is an input"});
  expect_failure(run("gm_data", {"synth", "--count", "2", "--size", "16", "--quiet", "--out", data}), 1,
                 {catalog, "is there already"});
  EXPECT_EQ(read_text(catalog), before);
  const std::string packed = dir / "p.h5", weights = read_text(model);
  expect_success(run("gm_data", {"pack", data, "--quiet", "--out", packed}));
  const std::string pack = read_text(packed);
  expect_failure(infer({packed, "--out", packed}), 1, {packed, "is an input"});
  expect_failure(run("gm_data", {"pack", packed, "--quiet", "--out", packed}), 1, {packed, "is an input"});
  expect_failure(run("gm_data", {"synth", "--count", "2", "--size", "16", "--quiet", "--out", packed}), 1,
                 {packed, "is there already"});
  EXPECT_EQ(read_text(packed), pack);
  const std::string votes = dir / "votes.csv";
  write_text(votes, "GalaxyID\n1\n");
  expect_failure(run("gm_data", {"clean", votes, "--images", data, "--out", votes}), 1,
                 {votes, "is an input"});
  expect_failure(run("gm_data", {"preview", good, "--config", config, "--out", good}), 1,
                 {good, "is an input"});
  expect_failure(run("gm_search", {"child", config, "--out", config}), 1, {config, "is an input"});
  EXPECT_EQ(read_text(votes) + read_text(config), "GalaxyID\n1\n" + test::tiny_config());
  expect_failure(run("gm_model", {"export", model, "--to", "timm", "--out", model}), 1,
                 {model, "is an input"});
  EXPECT_EQ(read_text(model), weights);
  fs::create_directory(dir / "run");  // a run is evaluated by its best weights and resumed from its last
  for (const char* file : {"best", "last"})
    fs::copy_file(model, dir / ("run/" + std::string(file) + ".safetensors"));
  expect_failure(
      run("gm_model", {"export", dir / "run", "--to", "timm", "--out", dir / "run/last.safetensors"}), 1,
      {"last.safetensors", "is an input"});
  const std::string picture = dir / "set/images/g0.png", pixels = read_text(picture);
  expect_failure(run("gm_data", {"preview", data, "--config", config, "--out", picture}), 1,
                 {picture, "is an input"});
  EXPECT_EQ(read_text(picture), pixels);

  // Folders: of a configuration, of a catalog, of a search, of a fold.
  const std::string mine = dir / "mine/config.yaml", table = dir / "eval/predictions.csv";
  fs::create_directories(dir / "mine");
  fs::create_directories(dir / "eval");
  write_text(mine, test::tiny_config());
  expect_failure(run("gm_train", {mine, "--data", data, "--out", dir / "mine"}), 1, {mine, "is an input"});
  EXPECT_EQ(read_text(mine), test::tiny_config());
  write_text(table, "id_str,file_loc,label\ng0,../set/images/g0.png,0\n");
  auto evaluate = [&](const std::string& set) {
    return run("gm_eval", {"--model", model, "--data", set, "--out", dir / "eval", "--device", "cpu"});
  };
  expect_failure(evaluate(table), 1, {table, "is an input"});
  fs::rename(table, dir / "eval/mine.csv");
  write_text(dir / "eval/scores.json", "{}");
  expect_failure(evaluate(dir / "eval/mine.csv"), 1, {dir / "eval", "fold"});
  EXPECT_FALSE(fs::exists(table));
  fs::create_directories(out);
  write_text(out + "/journal.jsonl", "");
  expect_failure(train({"--data", data, "--epochs", "1"}), 1, {out, "already holds a run (journal.jsonl)"});
}

// Under its name; what it has classified lies beside it.
TEST_F(Cli, AnInterruptedInferenceLeavesNothingButItsRows) {
  expect_success(infer({data, "--out", dir / "once.csv"}));
  const CsvTable once(dir / "once.csv");
  std::vector<std::string> args{"--model", model, "--quiet", "--device", "cpu", "--out", dir / "p.csv"};
  args.insert(args.end(), 5000, data);
  int64_t before = 0;
  for (const int signal : {SIGTERM, SIGHUP}) {
    test::Process p("gm_infer", args, {});
    EXPECT_EQ(signalled_while_writing(p, signal), 1);
    EXPECT_NE(p.err().find("gm_infer: error: interrupted after "), std::string::npos) << p.err();
    EXPECT_FALSE(fs::exists(dir / "p.csv"));
    expect_nothing_written();
    const CsvTable kept(dir / "p.partial.csv");
    EXPECT_GT(kept.rows(), before);
    before = kept.rows();
    const std::string count = std::to_string(before);
    expect_failure({"gm_infer", 1, "", p.err()}, 1,
                   {"interrupted after " + count + " of 100000 images; ",
                    dir / "p.partial.csv holds the rows of the first " + count + " of 100000 images"});
    for (int64_t r = 0; r < before; ++r)
      for (int c = 0; c < 7; ++c) ASSERT_EQ(kept.cell(r, c), once.cell(r % 20, c)) << r;
    if (signal == SIGTERM) args.push_back("--resume");
  }
}

TEST_F(Cli, AnInferenceOfUnreadableImagesCanBeInterrupted) {
  std::string csv = "file_loc\n";
  for (int i = 0; i < 300000; ++i) csv += "absent.png\n";
  write_text(dir / "absent.csv", csv);
  test::Process p(
      "gm_infer",
      {dir / "absent.csv", "--model", model, "--quiet", "--device", "cpu", "--out", dir / "p.csv"}, {});
  EXPECT_EQ(signalled_while_writing(p, SIGTERM), 1);
  const std::string last = p.err().substr(p.err().rfind("gm_infer"));
  EXPECT_EQ(last.rfind("gm_infer: error: interrupted after ", 0), 0u) << last;
  expect_nothing_written();
}

TEST_F(Cli, AnInferenceUnderNohupOutlivesItsTerminal) {
  std::vector<std::string> args{"--model", model, "--quiet", "--device", "cpu", "--out", dir / "p.csv"};
  args.insert(args.end(), 200, data);
  test::Process p("gm_infer", args, {.no_hang_up = true});
  EXPECT_EQ(signalled_while_writing(p, SIGHUP), 0) << p.err();
  EXPECT_EQ(CsvTable(dir / "p.csv").rows(), 200 * 20);
}

TEST_F(Cli, AnInterruptedPackLeavesNothing) {
  std::string csv = "id_str,file_loc\n";
  for (int i = 0; i < 20000; ++i) csv += "g,images/g0.png\n";
  write_text(dir / "many.csv", csv);
  fs::create_directory(dir / "images");
  fs::copy_file(good, dir / "images/g0.png");
  for (const int signal : {SIGINT, SIGHUP}) {
    test::Process p("gm_data", {"pack", dir / "many.csv", "--out", dir / "many.h5", "--size", "300"}, {});
    EXPECT_EQ(signalled_while_writing(p, signal), 1);
    EXPECT_NE(p.err().find("interrupted after "), std::string::npos) << p.err();
    EXPECT_FALSE(fs::exists(dir / "many.h5"));
    expect_nothing_written();
  }
}

// Predictions of an earlier call survive one that fails.
TEST_F(Cli, FailedInferenceKeepsTheOldPredictions) {
  const std::string csv = dir / "p.csv";
  expect_success(infer({good, "--out", csv}));
  const std::string before = read_text(csv);
  write_text(dir / "set/images/bad.png", "no picture");
  expect_failure(infer({dir / "set/images", "--strict", "--out", csv}), 1, {"bad.png"});
  EXPECT_EQ(read_text(csv), before);
}

}  // namespace
}  // namespace gm
