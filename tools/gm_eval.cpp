// gm_eval --model DIR|FILE --data PATH [--out DIR]: how well a trained network does on labelled images.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <numeric>

#include "data/split.h"
#include "engine/atomic_file.h"
#include "engine/metrics.h"
#include "layers/count.h"
#include "tools/classify.h"
#include "tools/confusion_picture.h"

namespace {

using namespace gm;
namespace fs = std::filesystem;

struct Arguments {
  std::string model, data, out, split = "all", device = "auto", precision = "f32";
  int64_t batch = 64, seed = 0;
  int threads = 0;
  Passes passes;
  bool strict = false, quiet = false;
};

void declare(CLI::App& app, Arguments& a) {
  app.add_option("--model", a.model, "run folder or weight file")->required();
  app.add_option("--data", a.data,
                 "labelled images: Galaxy10-layout .h5, catalog .csv, folder with labels.csv")
      ->required();
  app.add_option("--out", a.out, "folder for metrics.json, predictions.csv and confusion.png");
  app.add_option("--split", a.split,
                 "all, or the train, val or test images of the split.csv that lies beside the weights")
      ->capture_default_str()
      ->check(CLI::IsMember({"all", "train", "val", "test"}));
  declare_passes(app, a.passes);
  app.add_flag("--strict", a.strict, "fail on the first unreadable image instead of skipping it");
  app.add_option("--batch", a.batch, "images per step")->capture_default_str()->check(CLI::Range(1, 65536));
  app.add_option("--precision", a.precision, "f32 or bf16")
      ->capture_default_str()
      ->check(CLI::IsMember({"f32", "bf16"}));
  app.add_option("--device", a.device, "auto, cpu, cuda or cuda:INDEX")
      ->capture_default_str()
      ->check(check_device);
  app.add_option("--threads", a.threads, "CPU threads; 0: all")
      ->capture_default_str()
      ->check(CLI::Range(0, 4096));
  app.add_option("--seed", a.seed, "of the bootstrap and of --mc-dropout")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);
  app.add_flag("--quiet", a.quiet, "print the accuracy and errors only");
}

struct Selection {
  std::vector<int64_t> rows;
  int64_t unlabelled = 0;
};

Selection select_rows(const Arguments& args, const ModelFile& model, const Dataset& data) {
  std::vector<int64_t> wanted(static_cast<size_t>(data.size()));
  std::iota(wanted.begin(), wanted.end(), 0);
  std::string where = args.data;
  if (args.split != "all") {
    const std::string file = (fs::path(model.path).parent_path() / "split.csv").string();
    if (!fs::exists(file)) fail(file + ": no such file; --split " + args.split + " needs it");
    Split split = read_split(file, data);
    wanted = std::move(args.split == "train" ? split.train : args.split == "val" ? split.val : split.test);
    if (wanted.empty()) fail(file + ": the split has no " + args.split + " images");
    where += " (" + args.split + ")";
  }
  Selection selection;
  for (int64_t row : wanted)
    data.label(row) < 0 ? void(++selection.unlabelled) : selection.rows.push_back(row);
  if (selection.rows.empty()) fail(where + ": has no labels");
  return selection;
}

struct Result {
  ConfusionMatrix confusion;
  int64_t unlabelled = 0, unreadable = 0;
  Metrics metrics;
  Interval interval;  // of the accuracy, 95 %
};

std::string metrics_json(const Arguments& args, const ModelFile& model, const Result& result) {
  const Metrics& m = result.metrics;
  const auto names = class_names(model.architecture);
  ParameterTable table;
  const NetworkCount count =
      count_network(build_network(model.architecture, table, {.batch = 1, .loss = false}).graph);
  nlohmann::ordered_json j;
  j["accuracy"] = m.accuracy;
  j["accuracy_ci95"] = {result.interval.low, result.interval.high};
  j["accuracy_within_one"] = m.accuracy_within_one;
  for (auto [name, a] : {std::pair{"macro_", m.macro}, std::pair{"weighted_", m.weighted}}) {
    j[name + std::string("precision")] = a.precision;
    j[name + std::string("recall")] = a.recall;
    j[name + std::string("f1")] = a.f1;
  }
  j["n"] = m.n;
  j["classes"] = names;
  j["confusion"] = nlohmann::ordered_json::array();
  j["per_class"] = nlohmann::ordered_json::array();
  for (int t = 0; t < result.confusion.classes(); ++t) {
    std::vector<int64_t> row;
    for (int p = 0; p < result.confusion.classes(); ++p) row.push_back(result.confusion.at(t, p));
    j["confusion"].push_back(row);
    const ClassScores& s = m.per_class[t];
    j["per_class"].push_back({{"class", names[t]},
                              {"precision", s.precision},
                              {"recall", s.recall},
                              {"f1", s.f1},
                              {"support", s.support}});
  }
  j["model"] = model.path;
  j["data"] = args.data;
  j["split"] = args.split;
  j["skipped_unlabelled"] = result.unlabelled;
  j["skipped_unreadable"] = result.unreadable;
  j["params_total"] = count.params_total;
  j["params_trainable"] = count.params_trainable;
  j["macs"] = count.macs;
  j["flops_eq13"] = count.flops_eq13;
  return j.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

void print_table(const Result& result, const std::vector<std::string>& names) {
  const Metrics& m = result.metrics;
  size_t width = 16;
  for (const auto& name : names) width = std::max(width, name.size());
  auto line = [&](const std::string& name, double p, double r, double f, int64_t n) {
    fmt::print(stderr, "{:<{}}  {:>9.4f}  {:>9.4f}  {:>9.4f}  {:>8}\n", name, width, p, r, f, n);
  };
  fmt::print(stderr, "{:<{}}  {:>9}  {:>9}  {:>9}  {:>8}\n", "class", width, "precision", "recall", "F1",
             "n");
  for (size_t c = 0; c < names.size(); ++c) {
    const ClassScores& s = m.per_class[c];
    line(names[c], s.precision, s.recall, s.f1, s.support);
  }
  line("macro average", m.macro.precision, m.macro.recall, m.macro.f1, m.n);
  line("weighted average", m.weighted.precision, m.weighted.recall, m.weighted.f1, m.n);
  fmt::print(stderr, "accuracy 95 % interval {:.4f} to {:.4f} (bootstrap)\n", result.interval.low,
             result.interval.high);
}

void evaluate(const Arguments& args) {
  const ModelFile model = read_model(args.model);
  const auto names = class_names(model.architecture);
  auto device = open_device(args.device, {.threads = args.threads});
  const auto data = open_dataset(args.data, {.classes = names});
  const Selection selection = select_rows(args, model, *data);
  const auto total = static_cast<int64_t>(selection.rows.size());
  Predictor predictor(*device, model, std::min(args.batch, total),
                      {.bf16 = args.precision == "bf16",
                       .sampling = args.passes.dropout > 0,
                       .seed = static_cast<uint64_t>(args.seed)});
  auto file = [&](const std::string& name) { return (fs::path(args.out) / name).string(); };
  PredictionColumns columns = columns_for({data}, args.passes);
  columns.labels = true;
  std::unique_ptr<PredictionWriter> writer;
  if (!args.out.empty()) {
    std::error_code error;
    fs::create_directories(args.out, error);
    if (error) fail(args.out + ": cannot create: " + error.message());
    writer = open_predictions(file("predictions.csv"), names, columns);
  }
  if (!args.quiet)
    fmt::print(stderr, "device: {}{}\n", device->description(),
               device->backend() == Backend::cpu && args.device == "auto" ? " - " + no_cuda_reason() : "");
  if (selection.unlabelled && !args.quiet)
    fmt::print(stderr, "{} images without a label left out\n", selection.unlabelled);

  Result result{ConfusionMatrix(model.architecture.classes), selection.unlabelled};
  Classifier classifier(predictor, model.transform,
                        {.tool = "gm_eval",
                         .doing = "classifying",
                         .done = "classified",
                         .total = total,
                         .strict = args.strict,
                         .quiet = args.quiet},
                        args.passes);
  classifier.run(data, selection.rows, [&](const std::vector<int64_t>& rows, std::vector<Prediction>& batch) {
    for (size_t i = 0; i < batch.size(); ++i) {
      batch[i].label = data->label(rows[i]);
      result.confusion.add(batch[i].label, predicted_class(batch[i]));
    }
    if (writer) writer->write(batch);
  });
  classifier.reader().expect_some();
  result.unreadable = classifier.reader().bad();
  result.metrics = metrics_of(result.confusion);
  result.interval =
      bootstrap_interval(result.confusion.correct(), result.metrics.n, static_cast<uint64_t>(args.seed));
  if (writer) {
    writer->finish();
    write_image(file("confusion.png"), confusion_picture(result.confusion, names));
    write_file_atomic(file("metrics.json"), metrics_json(args, model, result));
  }
  if (!args.quiet) {
    print_table(result, names);
    fmt::print(stderr, "{}{}\n", classifier.reader().summary(), args.out.empty() ? "" : ": " + args.out);
  }
  fmt::print("accuracy {:.6f}\n", result.metrics.accuracy);
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{
      "Evaluates a network on labelled images: prints its accuracy and, with --out, writes metrics.json, "
      "predictions.csv and confusion.png. Rows without a label are left out."};
  Arguments args;
  declare(app, args);
  return gm::run_tool(app, argc, argv, [&] { evaluate(args); });
}
