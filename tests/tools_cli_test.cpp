// The command line on bad arguments and settings: one clear line, the right exit code.
#include <filesystem>
#include <iterator>

#include "tests/cli_fixture.h"

namespace gm {
namespace {

namespace fs = std::filesystem;
using test::Cli;
using test::expect_failure;
using test::expect_success;
using test::Ran;
using test::run;
using test::write_text;

TEST_F(Cli, HelpSucceedsAndUsageErrorsExitWithTwo) {
  for (const char* tool : {"gm_bench", "gm_check", "gm_compare", "gm_data", "gm_eval", "gm_explain",
                           "gm_infer", "gm_model", "gm_search", "gm_train"}) {
    const Ran help = run(tool, {"--help"});
    expect_success(help);
    EXPECT_NE(help.out.find("--help"), std::string::npos) << tool;
    EXPECT_EQ(help.err, "") << tool;
    if (tool != std::string("gm_bench"))
      expect_failure(run(tool, {}), 2, {"--help"});  // it needs no argument
    expect_failure(run(tool, {"--no-such-option"}), 2, {"--help"});
  }
  expect_failure(run("gm_data", {"synth"}), 2, {"--out"});
  expect_failure(run("gm_bench", {"--op", "no_such_op"}), 2, {"no_such_op"});
  expect_failure(run("gm_data", {"synth", "--out", out, "--count", "0"}), 2, {"--count"});
  expect_failure(run("gm_data", {"synth", "--out", out, "--classes", "gz6"}), 2, {"gz5"});
  expect_failure(infer({good, "--device", "gpu"}), 2, {"--device", "cuda:INDEX"});
  expect_failure(infer({good, "--batch", "0"}), 2, {"--batch"});
  expect_failure(train({"--data", data, "--epochs", "-1"}), 2, {"--epochs"});
  expect_failure(train({"--data", data, "--set", "epochs"}), 2, {"--set", "key=value"});
  expect_failure(run("gm_check", {config, "--steps", "2", "--against", "ref"}), 2, {"--steps", "reference"});
  expect_nothing_written();
}

// Scripts give them to every command.
TEST_F(Cli, EveryCommandKnowsDeviceSeedAndQuiet) {
  for (const std::vector<std::string>& command :
       std::vector<std::vector<std::string>>{{"gm_train"},
                                             {"gm_infer"},
                                             {"gm_eval"},
                                             {"gm_explain"},
                                             {"gm_check"},
                                             {"gm_bench"},
                                             {"gm_compare"},
                                             {"gm_model"},
                                             {"gm_model", "import"},
                                             {"gm_model", "export"},
                                             {"gm_data", "synth"},
                                             {"gm_data", "pack"},
                                             {"gm_data", "clean"},
                                             {"gm_data", "info"},
                                             {"gm_data", "fetch"},
                                             {"gm_data", "preview"},
                                             {"gm_search", "run"},
                                             {"gm_search", "child"},
                                             {"gm_search", "finalists"},
                                             {"gm_search", "scale"},
                                             {"gm_search", "resolution"}}) {
    SCOPED_TRACE(command.back());
    std::vector<std::string> arguments(command.begin() + 1, command.end());
    auto with = [&](std::initializer_list<std::string> more) {
      std::vector<std::string> all = arguments;
      all.insert(all.end(), more);
      return all;
    };
    const Ran help = run(command[0], with({"--help"}));
    for (const char* option : {"--device", "--seed", "--quiet"})
      EXPECT_NE(help.out.find(option), std::string::npos) << option;
    expect_failure(run(command[0], with({"--device", "gpu"})), 2, {"--device", "cuda:INDEX"});
    expect_failure(run(command[0], with({"--seed", "-1"})), 2, {"--seed"});
  }
  expect_success(run("gm_model", {config, "--device", "cpu", "--seed", "3", "--quiet"}));
  expect_success(run("gm_data", {"info", data, "--device", "cpu", "--seed", "3", "--quiet"}));
}

TEST_F(Cli, WholeNumbersAreDecimal) {
  const auto drawn = [&](const std::string& count) {
    fs::remove_all(out);
    expect_success(run("gm_data", {"synth", "--out", out, "--size", "016", "--count", count, "--quiet"}));
    return std::distance(fs::directory_iterator(fs::path(out) / "images"), fs::directory_iterator());
  };
  EXPECT_EQ(drawn("010"), 10);
  EXPECT_EQ(drawn("08"), 8);
  EXPECT_EQ(drawn("+3"), 3);
  fs::remove_all(out);
  // 2^64 and 2^63: they were the largest seeds there are.
  expect_failure(run("gm_data", {"synth", "--out", out, "--seed", "18446744073709551616"}), 2,
                 {"--seed", "'18446744073709551616' is too large"});
  expect_failure(infer({good, "--seed", "9223372036854775808"}), 2, {"--seed", "too large"});
  expect_failure(run("gm_data", {"pack", data, "--out", dir / "p.h5", "--size", "3"}), 2, {"--size", "3 px"});
  expect_nothing_written();
}

TEST_F(Cli, WithoutACardItsJpegDecoderIsAnError) {
  expect_failure(infer({dir / "set/images", "--decode", "card", "--out", dir / "p.csv"}), 1,
                 {"--decode card", "no decoder"});
  EXPECT_FALSE(fs::exists(dir / "p.csv"));
}

TEST_F(Cli, Configurations) {
  auto fails = [&](const std::string& from, const std::string& to, const std::vector<std::string>& parts) {
    std::string text = test::tiny_config();
    text.replace(text.find(from), from.size(), to);
    write_text(config, text);
    expect_failure(train({"--data", data}), 1, parts);
    expect_nothing_written();
  };
  fails("classes:", "clases:", {config + ":3: model.clases: unknown key", "did you mean 'classes'?"});
  fails("lr: 3.0e-3", "lr: high", {config + ":19: optimizer.lr: must be a number"});
  fails("kernel: 5", "kernel: 4", {config + ":13: model.stages[1].kernel: must be odd"});
  fails("batch: 8", "batch: -8", {config + ":21: train.batch: -8 is out of range"});
  fails("kind: gz", "kind: imagenet", {config + ":18", "'imagenet' is not one of"});
  fails("input:\n", "input: [\n", {config, "not valid YAML"});
  fails("input:\n", "recipe: [a]\ninput:\n", {config + ":15: recipe must be one name"});
  fails("input:\n", "train: {epochs: 1}\ninput:\n", {config + ":", "'train' is given twice"});
  expect_failure(run("gm_train", {dir / "none.yaml", "--data", data}), 1, {dir / "none.yaml", "cannot open"});
  expect_failure(run("gm_model", {dir / "none.yaml"}), 1, {dir / "none.yaml", "cannot open"});
  write_text(config, test::tiny_config());
  expect_failure(run("gm_model", {config, "--set", "model.stagse=1"}), 1, {"(--set)", "'stages'"});
  expect_failure(run("gm_model", {config, "--set", "model.stages=[{filters: 8, strid: 2}]"}), 1,
                 {config + " (--set): model.stages[0].strid", "'stride'"});
  expect_failure(run("gm_model", {config, "--set", "model=3"}), 1, {config + " (--set): model must be"});
  expect_failure(run("gm_model", {config, "--set", "model.se="}), 1, {"--set model.se=", "no value"});
  expect_failure(run("gm_model", {config, "--set", "recipe=paper"}), 1, {config, "no recipes", "'paper'"});
  expect_failure(run("gm_model", {config, "--set", "recipe="}), 1, {"--set recipe=", "no value"});
  expect_failure(run("gm_model", {config, "--set", "model.batch_norm.epsilon=0"}), 1, {"range [1e-12, 1]"});
}

TEST_F(Cli, CudaWithoutACard) {
  if (no_cuda_reason().empty()) GTEST_SKIP() << "a CUDA card is here";
  expect_failure(train({"--data", data, "--device", "cuda"}), 1, {"--device cuda", no_cuda_reason()});
  expect_failure(run("gm_infer", {"--model", model, good, "--device", "cuda:1"}), 1, {"--device cuda:1"});
  expect_nothing_written();
}

TEST_F(Cli, OptionsThatWouldDoNothing) {
  expect_failure(run("gm_model", {model, "--set", "model.se=0.5"}), 1, {"--set", model});
  expect_failure(run("gm_model", {config, "--batch", "9223372036854775807"}), 2, {"--batch"});
  expect_failure(run("gm_model", {config, "--json"}, {.out = "/dev/full"}), 1,
                 {"cannot write to standard output: No space left"});
  expect_failure(run("gm_check", {config, "--tolerance", "nan"}), 2, {"--tolerance", "'nan'"});
  expect_failure(run("gm_bench", {"--op", "add", "--threads", "100000"}), 2, {"--threads"});
  expect_failure(train({"--data", data, "--epochs", "0"}), 2, {"--epochs", "'0' is not a number above 0"});
  expect_failure(run("gm_train", {dir.path(), "--data", data, "--out", out}), 1, {dir.path(), "is a folder"});
  // --set takes one key each time: what follows is the configuration.
  expect_success(run("gm_model", {"--set", "input.size=64", config}));
  expect_nothing_written();
}

}  // namespace
}  // namespace gm
