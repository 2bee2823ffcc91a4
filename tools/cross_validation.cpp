#include "tools/cross_validation.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>

#include "data/csv.h"
#include "data/folds.h"
#include "data/predictions.h"
#include "engine/atomic_file.h"
#include "engine/metrics.h"
#include "layers/count.h"
#include "tools/classify.h"
#include "tools/cli.h"
#include "tools/resumed_config.h"
#include "tools/run_folder.h"

namespace gm {

namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

std::string text_of(const Json& j) { return j.dump(2, ' ', false, Json::error_handler_t::replace) + "\n"; }

Json scores_json(const Metrics& m) {
  Json j;
  j["accuracy"] = m.accuracy;
  for (const auto& [name, a] : {std::pair{"macro_", m.macro}, std::pair{"weighted_", m.weighted}}) {
    j[name + std::string("precision")] = a.precision;
    j[name + std::string("recall")] = a.recall;
    j[name + std::string("f1")] = a.f1;
  }
  j["class_accuracy"] = Json::array();  // recall: the share of a class's images that are recognised
  for (const ClassScores& s : m.per_class) j["class_accuracy"].push_back(s.recall);
  return j;
}

// Training speed of a run: the median over its epochs.
double images_per_second(const std::string& metrics) {
  const CsvTable table(metrics);
  std::vector<double> rates;
  for (int64_t r = 0; r < table.rows(); ++r)
    rates.push_back(std::stod(table.cell(r, table.column("images_per_second"))));
  if (rates.empty()) return 0;
  std::nth_element(rates.begin(), rates.begin() + static_cast<long>(rates.size() / 2), rates.end());
  return rates[rates.size() / 2];
}

// The last epoch's weights on the fold's own images: predictions.csv, then scores.json, which says that the
// fold is finished. False when `stop` came first.
bool score_fold(const TrainJob& job, Device& device, const std::shared_ptr<const Dataset>& data,
                const std::vector<int64_t>& rows, const std::atomic<bool>& stop) {
  const ModelFile model = read_model(job.out + "/last.safetensors");
  const int64_t total = static_cast<int64_t>(rows.size());
  Predictor predictor(device, model, std::min<int64_t>(64, total),
                      {.bf16 = job.run.train.bf16, .images = on_device(device, {})});
  Classifier classifier(predictor, model.transform,
                        {.tool = "gm_train",
                         .doing = "classifying",
                         .done = "classified",
                         .total = total,
                         .strict = true,
                         .quiet = job.quiet});
  const auto writer =
      open_predictions(job.out + "/predictions.csv", class_names(model.architecture), {.labels = true});
  ConfusionMatrix confusion(model.architecture.classes);
  struct Stopped {};
  try {
    classifier.run(data, rows, [&](const std::vector<int64_t>& at, std::vector<Prediction>& batch) {
      if (stop) throw Stopped();
      for (size_t i = 0; i < batch.size(); ++i) {
        batch[i].label = data->label(at[i]);
        confusion.add(batch[i].label, predicted_class(batch[i]));
      }
      writer->write(batch);
    });
  } catch (const Stopped&) {
    return false;
  }
  writer->finish();
  Json j{{"fold", job.run.fold}, {"n", confusion.total()}};
  j.update(scores_json(metrics_of(confusion)));
  j["images_per_second"] = images_per_second(job.out + "/metrics.csv");
  j["confusion"] = Json::array();
  for (int t = 0; t < confusion.classes(); ++t) j["confusion"].push_back(confusion.row(t));
  write_file_atomic(job.out + "/scores.json", text_of(j));
  return true;
}

// Mean and sample standard deviation over folds of every number, or list of numbers, that all of them have.
void add_spread(Json& summary, const std::vector<Json>& folds) {
  auto spread = [&](const auto& value_of) {
    double mean = 0, squares = 0;
    const double n = static_cast<double>(folds.size());
    for (const Json& f : folds) mean += value_of(f) / n;
    for (const Json& f : folds) squares += std::pow(value_of(f) - mean, 2);
    return std::pair<Json, Json>(mean, folds.size() > 1 ? Json(std::sqrt(squares / (n - 1))) : Json());
  };
  Json mean, deviation;
  for (const auto& item : folds.front().items()) {
    const std::string& key = item.key();
    const Json& value = item.value();
    if (key == "fold" || key == "n" || key == "confusion") continue;
    if (value.is_number()) {
      std::tie(mean[key], deviation[key]) = spread([&](const Json& f) { return f.at(key).get<double>(); });
      continue;
    }
    for (size_t c = 0; c < value.size(); ++c) {
      const auto [m, d] = spread([&](const Json& f) { return f.at(key).at(c).get<double>(); });
      mean[key].push_back(m);
      deviation[key].push_back(d);
    }
  }
  summary["mean"] = mean;
  summary["std"] = deviation;
}

Json summary_json(const CrossValidation& cv, const Device& device, const std::vector<Json>& folds) {
  const RunConfig& run = cv.job.run;
  const NetworkCount count = count_network(run.architecture);
  Json j;
  j["network"] = run.architecture.name;
  j["data"] = run.data_path;
  j["input_size"] = run.architecture.input_size;
  j["recipe"] = cv.job.yaml["recipe"] ? cv.job.yaml["recipe"].Scalar() : "";
  j["epochs"] = run.train.epochs;
  j["batch"] = run.train.batch;
  j["seed"] = run.train.seed;
  j["device"] = device.description();
  j["weights"] = "last epoch";
  j["classes"] = class_names(run.architecture);
  j["params_total"] = count.params_total;
  j["params_trainable"] = count.params_trainable;
  j["macs"] = count.macs;
  j["flops_eq13"] = count.flops_eq13;
  j["folds"] = cv.folds;
  j["folds_finished"] = folds.size();
  ConfusionMatrix pooled(run.architecture.classes);
  for (const Json& f : folds)
    for (int t = 0; t < pooled.classes(); ++t)
      for (int p = 0; p < pooled.classes(); ++p)
        pooled.add(t, p, f.at("confusion").at(t).at(p).get<int64_t>());
  j["n"] = pooled.total();
  add_spread(j, folds);
  j["pooled"] = scores_json(metrics_of(pooled));
  j["fold_scores"] = folds;
  return j;
}

/// The fold of each image. Everything that needs no file is checked.
std::vector<int> checked_folds(const CrossValidation& cv, const Dataset& data) {
  const RunConfig& run = cv.job.run;
  if (run.train.patience > 0)
    fail(
        "--cross-validate scores the last epoch, and train.patience would choose that epoch by the images "
        "it is scored on: use --set train.patience=0");
  if (run.split.test > 0) fail("--cross-validate needs data.test_fraction 0: folds have no test part");
  for (int k : cv.only)
    if (k < 1 || k > cv.folds) fail(fmt::format("--folds {}: there are folds 1 to {}", k, cv.folds));
  const std::vector<int> folds = make_folds(
      data, {.count = cv.folds, .seed = run.split.seed, .same_sky_arcsec = run.split.same_sky_arcsec});
  for (int k = 0; k < cv.folds; ++k) check_split(cv.job, fold_split(folds, k));
  check_network(run);
  return folds;
}

/// Begins the folder, or goes on in it. Holds it for this process, unless several share the folds, each of
/// which has a lock.
std::optional<FolderLock> begin(const CrossValidation& cv, const std::string& table) {
  const std::string &out = cv.job.out, table_file = out + "/folds.csv";
  auto keep_old = [&] {
    if (fs::exists(table_file))
      fail(out + ": already holds folds; continue with --resume or choose another --out");
  };
  if (cv.job.resume && !fs::exists(table_file)) fail(out + ": no folds.csv to resume from");
  if (!cv.job.resume) keep_old(), RunFolder(out, false);
  std::optional<FolderLock> hold(hold_run(out, "lock"));
  if (cv.job.resume) {
    if (read_file(table_file) != table)
      fail(table_file + ": other folds than these: the data, --seed or --cross-validate have changed");
  } else {
    keep_old();  // another process may just have begun
    write_file_atomic(table_file, table);
  }
  if (!cv.job.resume || !cv.job.changes.empty())
    write_file_atomic(out + "/config.yaml", config_text(cv.job.yaml));
  if (!cv.only.empty()) hold.reset();
  return hold;
}

}  // namespace

void cross_validate(const CrossValidation& cv, Device& device, const std::shared_ptr<ImageCache>& cache) {
  const std::string& out = cv.job.out;
  const auto& data = cache->data();
  const std::vector<int> folds = checked_folds(cv, *data);
  const std::atomic<bool>& stop = stop_on_signals();  // before the first file
  const std::optional<FolderLock> hold = begin(cv, folds_csv(*data, folds));
  auto say = [&](const std::string& line) {
    if (!cv.job.quiet) fmt::print("{}\n", line), std::fflush(stdout);
  };
  auto folder = [&](int k) { return fmt::format("{}/fold{}", out, k); };
  for (int k = 1; k <= cv.folds; ++k) {
    if (!cv.only.empty() && std::find(cv.only.begin(), cv.only.end(), k) == cv.only.end()) continue;
    if (fs::exists(folder(k) + "/scores.json")) {
      say(fmt::format("fold {}: finished before", k));
      continue;
    }
    TrainJob job = cv.new_job(fs::exists(folder(k) + "/last.safetensors"));
    if (cv.job.resume) take_up_config(job, out + "/config.yaml", MayChange::place);
    job.run.architecture.class_names = cv.job.run.architecture.class_names;
    job.run.folds = cv.folds;
    job.run.fold = k;
    job.yaml["data"]["folds"] = cv.folds;
    job.yaml["data"]["fold"] = k;
    job.out = folder(k);
    job.resume_with = cv.job.resume_with;
    say(fmt::format("fold {} of {}: {}", k, cv.folds, job.out));
    const Split split = job.resume ? split_of(job, *data) : fold_split(folds, k - 1);
    const TrainJob scored{.run = job.run, .out = job.out, .quiet = job.quiet};
    if (train_run(std::move(job), device, cv.device_line, cache, split, stop) ==
        Trainer::Outcome::interrupted)
      return;
    if (!score_fold(scored, device, data, split.val, stop)) {
      say(fmt::format("stopped before fold {} was scored. Resume with: {}", k, cv.job.resume_with));
      return;
    }
  }
  std::vector<Json> scores;
  for (int k = 1; k <= cv.folds; ++k)
    if (const std::string file = folder(k) + "/scores.json"; fs::exists(file)) try {
        scores.push_back(Json::parse(read_file(file)));
      } catch (const Json::exception& e) {
        fail(file + ": not valid JSON: " + e.what());
      }
  const Json summary = summary_json(cv, device, scores);
  write_file_atomic(out + "/summary.json", text_of(summary));
  const Json deviation = summary["std"]["accuracy"];
  say(fmt::format("accuracy {:.4f}{} over {} of {} folds; {}/summary.json",
                  summary["mean"]["accuracy"].get<double>(),
                  deviation.is_null() ? "" : fmt::format(" ± {:.4f}", deviation.get<double>()), scores.size(),
                  cv.folds, out));
}

}  // namespace gm
