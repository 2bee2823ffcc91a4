// gm_eval --model DIR|FILE --data PATH [--out DIR]: how well a trained network does on labelled images.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>
#include <numeric>

#include "data/split.h"
#include "engine/atomic_file.h"
#include "tools/cli.h"
#include "tools/explainer.h"
#include "tools/model_bench.h"
#include "tools/pictures/confusion_picture.h"
#include "tools/pictures/explain_picture.h"
#include "tools/report.h"
#include "tools/report_cards.h"
#include "tools/shell.h"
#include "tools/training_record.h"

namespace {

using namespace gm;
namespace fs = std::filesystem;

struct Arguments {
  std::string model, data, out, split = "all", device = "auto", precision = "f32", command;
  int64_t batch = 64, seed = 0;
  int threads = 0;
  Passes passes;
  bool speed = false, strict = false, quiet = false;
};

constexpr int64_t kTimedBatches[] = {1, 4, 16, 64};
constexpr size_t kExplained = 10;

void declare(CLI::App& app, Arguments& a) {
  app.add_option("--model", a.model, "run folder or weight file")->required();
  app.add_option("--data", a.data,
                 "labelled images: Galaxy10-layout .h5, catalog .csv, folder with labels.csv")
      ->required();
  app.add_option("--out", a.out, "folder for metrics.json, predictions.csv, pictures and report.html");
  app.add_option("--split", a.split,
                 "all, or the train, val or test images of the split.csv that lies beside the weights")
      ->capture_default_str()
      ->check(CLI::IsMember({"all", "train", "val", "test"}));
  declare_passes(app, a.passes);
  app.add_flag("--speed", a.speed, "also time the network by batch size");
  app.add_flag("--strict", a.strict, "fail on the first unreadable image instead of skipping it");
  app.add_option("--batch", a.batch, "images per step")->capture_default_str()->check(CLI::Range(1, 65536));
  app.add_option("--precision", a.precision, "f32, tf32 (of a card's products) or bf16")
      ->capture_default_str()
      ->check(CLI::IsMember({"f32", "tf32", "bf16"}));
  add_device(app, a.device, a.threads);
  app.add_option("--seed", a.seed, "of the bootstrap and of --mc-dropout")
      ->capture_default_str()
      ->check(check_not_negative);
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

/// Everything that is written into --out; the report last, so that nothing is lost when it fails.
class Results {
 public:
  Results(const std::string& folder, const std::string& data, const std::vector<std::string>& classes,
          const PredictionColumns& columns)
      : folder_(folder) {
    if (folder.empty()) return;
    make_folder(folder);
    keep_inputs(file("predictions.csv"), {data});
    std::error_code none;
    if (fs::exists(file("scores.json"), none))
      fail(folder + ": holds the predictions of a fold's own images; choose another --out");
    predictions_ = open_predictions(file("predictions.csv"), classes, columns);
  }
  bool wanted() const { return predictions_ != nullptr; }
  void predictions(const std::vector<Prediction>& rows) {
    if (wanted()) predictions_->write(rows);
  }
  void scores(const Evaluation& e) {
    predictions_->finish();
    write_file_atomic(file("metrics.json"), metrics_json(e));
    write_image(file("confusion.png"), confusion_picture(e.confusion, e.classes));
    write_file_atomic(file("reliability.svg"), chart_svg(reliability_chart(e)));
    if (const auto record = training_record_if_any(e.model)) {
      write_file_atomic(file("loss.svg"), chart_svg(loss_chart(*record)));
      write_file_atomic(file("accuracy.svg"), chart_svg(accuracy_chart(*record)));
    }
  }
  void report(const ReportInput& input) { write_file_atomic(file("report.html"), report_html(input)); }

 private:
  std::string file(const std::string& name) const { return (fs::path(folder_) / name).string(); }
  std::string folder_;
  std::unique_ptr<PredictionWriter> predictions_;
};

/// Saliency and Grad-CAM of the predicted classes of these images, in their order.
Image explain(Device& device, const ModelFile& model, const std::shared_ptr<const Dataset>& data,
              const std::vector<Outcome>& examples, const std::vector<std::string>& classes,
              std::string& layer) {
  std::vector<int64_t> rows;
  for (const Outcome& o : examples) rows.push_back(o.row);
  Explainer explainer(device, model, std::min<int64_t>(4, static_cast<int64_t>(rows.size())),
                      {.smooth = false});
  layer = explainer.layer_text();
  ImageReader reader(model.transform, explainer.batch(),
                     {.tool = "gm_eval",
                      .doing = "explaining",
                      .done = "explained",
                      .total = static_cast<int64_t>(rows.size()),
                      .quiet = true,
                      .stop = &stop_on_signals(),
                      .lost = "report.html was not written"});
  std::vector<Explanation> sheet;
  reader.run(data, rows, [&](const HostBatch& batch) {
    for (Explanation& e : explainer.explain(*data, batch, [](int, int predicted) { return predicted; }))
      sheet.push_back(std::move(e));
  });
  return explain_picture(sheet, classes, explainer.layer());
}

/// What is known of an evaluation before the data are opened.
Evaluation describe(const Arguments& args, const ModelFile& model, const Device& device) {
  Evaluation e;
  e.classes = class_names(model.architecture);
  e.name = model.architecture.name;
  e.model = model.path;
  e.data = args.data;
  e.split = args.split;
  e.precision = args.precision;
  e.passes = args.passes;
  e.input_size = model.architecture.input_size;
  e.device = device.description();
  e.count = count_network(model.architecture);
  e.confusion = ConfusionMatrix(model.architecture.classes);
  return e;
}

std::unique_ptr<Predictor> make_predictor(const Arguments& args, const ModelFile& model, Device& device,
                                          int64_t images) {
  return std::make_unique<Predictor>(device, model, rows_of(device, args.passes, args.batch, images),
                                     PredictorOptions{.bf16 = args.precision == "bf16",
                                                      .sampling = args.passes.dropout > 0,
                                                      .seed = static_cast<uint64_t>(args.seed),
                                                      .images = on_device(device, args.passes)});
}

struct Classified {
  std::vector<ScoredImage> scored;
  std::vector<Outcome> outcomes;
  std::string summary;
};

/// Runs the network on these rows; its predictions go to `results`, the counts to `e`.
Classified classify(const Arguments& args, const ModelFile& model, Predictor& predictor,
                    const std::shared_ptr<const Dataset>& data, const std::vector<int64_t>& rows,
                    Results& results, Evaluation& e) {
  Classified all;
  Classifier classifier(predictor, model.transform,
                        {.tool = "gm_eval",
                         .doing = "classifying",
                         .done = "classified",
                         .total = static_cast<int64_t>(rows.size()),
                         .strict = args.strict,
                         .quiet = args.quiet,
                         .stop = &stop_on_signals()},
                        args.passes);
  classifier.run(data, rows, [&](const std::vector<int64_t>& at, std::vector<Prediction>& batch) {
    for (size_t i = 0; i < batch.size(); ++i) {
      Prediction& p = batch[i];
      p.label = data->label(at[i]);
      const int predicted = predicted_class(p);
      e.confusion.add(p.label, predicted);
      all.scored.push_back({p.logits, p.label});
      all.outcomes.push_back({at[i], p.label, predicted, p.probabilities[predicted]});
    }
    results.predictions(batch);
  });
  classifier.reader().expect_some();
  e.unreadable = classifier.reader().bad();
  all.summary = classifier.reader().summary();
  return all;
}

void go_on(const std::atomic<bool>& stop) {
  if (stop) fail("interrupted; no file was written");
}

SpeedRow time_batch(Device& device, const ModelFile& model, int64_t batch, const std::string& precision) {
  const Timing t = time_model(device, model.architecture,
                              {.batch = batch, .training = false, .precision = precision, .seconds = 1})
                       .step;
  return {batch, t.median, t.p5, t.p95};
}

void evaluate(const Arguments& args) {
  const ModelFile model = read_model(args.model);
  auto device = open_device(args.device, {.threads = args.threads, .tf32 = args.precision == "tf32"});
  Evaluation e = describe(args, model, *device);
  const auto data = open_dataset(args.data, {.classes = e.classes});
  const Selection selection = select_rows(args, model, *data);
  e.unlabelled = selection.unlabelled;
  auto predictor = make_predictor(args, model, *device, static_cast<int64_t>(selection.rows.size()));
  const std::string warning = overlap_warning(e);
  PredictionColumns columns = columns_for(*data, args.passes);
  columns.labels = true;
  const std::atomic<bool>& stop = stop_on_signals();  // before the first file
  Results results(args.out, args.data, e.classes, columns);
  if (!args.quiet) {
    say(device_line(*device, args.device));
    if (selection.unlabelled) say(fmt::format("{} images without a label left out", selection.unlabelled));
    if (!warning.empty()) say(fmt::format("note: {}", warning));
  }

  Classified all = classify(args, model, *predictor, data, selection.rows, results, e);
  finish_evaluation(e, all.scored, static_cast<uint64_t>(args.seed));
  predictor.reset();  // its memory is free for what follows
  go_on(stop);
  if (args.speed)
    for (int64_t batch : kTimedBatches) {
      e.speed.push_back(time_batch(*device, model, batch, args.precision));
      go_on(stop);
    }
  if (results.wanted()) results.scores(e);
  if (!args.quiet) {
    print_scores(e);
    say(fmt::format("{}{}", all.summary, args.out.empty() ? "" : ": " + args.out));
  }
  fmt::print("accuracy {:.6f}\n", e.metrics.accuracy);
  if (!results.wanted()) return;
  std::fflush(stdout);
  const auto examples = telling_examples(all.outcomes, kExplained);
  std::string layer;
  const Image explanations = explain(*device, model, data, examples, e.classes, layer);
  results.report({model, e, *data, std::move(all.outcomes), explanations, layer, args.command});
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{
      "Evaluates a network on labelled images: prints its accuracy and, with --out, writes metrics.json, "
      "predictions.csv, pictures and report.html. Rows without a label are left out."};
  Arguments args;
  declare(app, args);
  args.command = shell_command(argc, argv);
  return gm::run_tool(app, argc, argv, [&] { evaluate(args); });
}
