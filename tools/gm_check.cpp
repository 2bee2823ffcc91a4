// gm_check MODEL: one device against another on a network, layer by layer and over the first steps of
// training.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <optional>

#include "data/loader.h"
#include "data/synthetic.h"
#include "kernels/common/backends.h"
#include "layers/model_check.h"
#include "tools/cli.h"
#include "tools/model_file.h"
#include "tools/read_images.h"
#include "tools/run_config.h"

namespace {

using namespace gm;

struct Arguments {
  std::string config, data, weights, device = "auto", other = "cpu", precision = "f32",
                                     other_precision = "f32", mode = "both";
  std::vector<std::string> sets;
  int64_t batch = 8, steps = 0, seed = 0;
  int threads = 0;
  // 0: by precision, see below
  double tolerance = 0, gradient_tolerance = 0, loss_tolerance = 0;
  bool json = false, quiet = false;
};

void declare(CLI::App& app, Arguments& a) {
  auto one_of = [](std::vector<std::string> names) { return CLI::IsMember(std::move(names)); };
  app.add_option("config", a.config, "model and recipe (YAML)")->required();
  app.add_option(
         "--device", a.device,
         "the side that is judged: auto, cpu, cuda, cuda:INDEX, or simt, the card's kernels on the CPU")
      ->capture_default_str()
      ->check([](const std::string& name) { return name == "simt" ? "" : check_device(name); });
  app.add_option("--precision", a.precision, "f32 or bf16")
      ->capture_default_str()
      ->check(one_of({"f32", "bf16"}));
  app.add_option("--against", a.other,
                 "the side it is held against: a device, or ref, the reference kernels in double precision")
      ->capture_default_str()
      ->check([](const std::string& name) { return name == "ref" ? "" : check_device(name); });
  app.add_option("--against-precision", a.other_precision, "f32 or bf16")
      ->capture_default_str()
      ->check(one_of({"f32", "bf16"}));
  app.add_option("--mode", a.mode, "train (one step), infer (the folded network) or both")
      ->capture_default_str()
      ->check(one_of({"train", "infer", "both"}));
  app.add_option("--steps", a.steps, "then train so many steps on both sides and compare the losses")
      ->check(check_not_negative);
  app.add_option("--data", a.data, "images, as for gm_train; default: synthetic galaxies");
  app.add_option("--weights", a.weights, "run folder or weight file; default: initial weights");
  app.add_option("--batch", a.batch, "images in a step")->capture_default_str()->check(CLI::Range(1, 65536));
  add_sets(app, a.sets, "override one key, e.g. --set input.size=64");
  app.add_option(
         "--tolerance", a.tolerance,
         "relative L2 difference of layers, logits, loss and statistics; default 1e-4 in f32, 0.1 in bf16")
      ->check(check_positive);
  app.add_option("--gradient-tolerance", a.gradient_tolerance,
                 "of gradients; default 1e-3 in f32, 0.5 in bf16")
      ->check(check_positive);
  app.add_option("--loss-tolerance", a.loss_tolerance,
                 "relative difference of each step's loss; default 1e-3 in f32, 0.05 in bf16")
      ->check(check_positive);
  app.add_option("--threads", a.threads, "CPU threads; 0: all")
      ->capture_default_str()
      ->check(CLI::Range(0, 4096));
  app.add_option("--seed", a.seed, "of weights, images and dropout")
      ->capture_default_str()
      ->check(check_not_negative);
  app.add_flag("--json", a.json, "one JSON object for every tensor and step");
  app.add_flag("--quiet", a.quiet, "print errors only");
}

// Where the two sides stand, by kind of tensor, and what is beyond its tolerance.
class Report {
 public:
  explicit Report(const Arguments& a) : a_(a) {
    const bool bf16 = a.precision == "bf16" || a.other_precision == "bf16";
    tolerance_ = a.tolerance > 0 ? a.tolerance : bf16 ? 0.1 : 1e-4;
    gradient_ = a.gradient_tolerance > 0 ? a.gradient_tolerance : bf16 ? 0.5 : 1e-3;
    loss_ = a.loss_tolerance > 0 ? a.loss_tolerance : bf16 ? 0.05 : 1e-3;
  }

  void tensors(const std::string& mode, const std::vector<Difference>& all) {
    struct Kind {
      int count = 0;
      double max = 0, mean = 0;
      int64_t moved = 0;
      const Difference* worst = nullptr;
    } kinds[Difference::kKinds];
    for (const Difference& d : all) {
      const double tolerance = tolerance_of(d.kind);
      const bool within = d.relative <= tolerance;  // false for NaN
      if (!within) beyond(fmt::format("{} {} '{}'", mode, kind_name(d.kind), d.name), d.relative, tolerance);
      if (a_.json)
        fmt::print("{}\n", nlohmann::json{{"mode", mode},
                                          {"kind", kind_name(d.kind)},
                                          {"name", d.name},
                                          {"max", d.max},
                                          {"mean", d.mean},
                                          {"moved", d.moved},
                                          {"relative", d.relative},
                                          {"tolerance", tolerance},
                                          {"within", within}}
                               .dump());
      Kind& k = kinds[d.kind];
      k.max = std::max(k.max, d.max);
      k.mean = (k.mean * k.count + d.mean) / (k.count + 1);
      k.moved += d.moved;
      ++k.count;
      if (!k.worst || !(d.relative <= k.worst->relative)) k.worst = &d;
    }
    if (a_.json || a_.quiet) return;
    fmt::print("\n{:<18} {:>7} {:>9} {:>9} {:>9} {:>9}  worst\n", mode, "tensors", "max", "mean", "relative",
               "tolerance");
    for (const Kind& k : kinds)
      if (k.worst)
        fmt::print("{:<18} {:>7} {:>9.2g} {:>9.2g} {:>9.2g} {:>9.2g}  {}\n", kind_name(k.worst->kind),
                   k.count, k.max, k.mean, k.worst->relative, tolerance_of(k.worst->kind),
                   k.worst->name + (k.moved ? fmt::format(" ({} elsewhere)", k.moved) : ""));
  }

  void losses(const std::vector<StepLosses>& all) {
    const StepLosses* worst = &all[0];
    for (const StepLosses& s : all) {
      const double r = s.relative();
      if (!(r <= worst->relative())) worst = &s;
      if (!(r <= loss_)) beyond(fmt::format("loss of step {}", s.step + 1), r, loss_);
      if (a_.json)
        fmt::print("{}\n", nlohmann::json{{"mode", "training"},
                                          {"step", s.step + 1},
                                          {"loss", s.side},
                                          {"against", s.other},
                                          {"relative", r},
                                          {"tolerance", loss_},
                                          {"within", r <= loss_}}
                               .dump());
    }
    if (a_.json || a_.quiet) return;
    fmt::print(
        "\n{} steps of training: loss {:.5f} -> {:.5f}, against {:.5f}; largest relative difference {:.2g} "
        "at step {} (tolerance {:.2g})\n",
        all.size(), all.front().side, all.back().side, all.back().other, worst->relative(), worst->step + 1,
        loss_);
  }

  /// Throws gm::Error when something was beyond its tolerance.
  void finish(const std::string& sides) const {
    if (beyond_)
      fail(fmt::format("{}: {}{}", sides, first_,
                       beyond_ > 1 ? fmt::format(", and {} more", beyond_ - 1) : ""));
  }

 private:
  double tolerance_of(Difference::Kind kind) const {
    return kind == Difference::maximum ? 0 : kind == Difference::gradient ? gradient_ : tolerance_;
  }
  void beyond(const std::string& what, double got, double tolerance) {
    if (!beyond_++) first_ = fmt::format("{} differs by {:.2g}, more than {:.2g}", what, got, tolerance);
  }

  const Arguments& a_;
  double tolerance_, gradient_, loss_;
  int beyond_ = 0;
  std::string first_;
};

// Batches as gm_train draws them. Few synthetic galaxies suffice: they are augmented anew in every epoch.
std::unique_ptr<Loader> open_source(const Arguments& a, const RunConfig& run) {
  std::shared_ptr<Dataset> data;
  const int classes = run.architecture.classes;
  if (a.data.empty())
    data = std::make_shared<SyntheticDataset>(
        classes == 10 ? SyntheticSet::galaxy10 : SyntheticSet::gz5,
        std::max(a.batch, std::min<int64_t>(a.batch * std::max<int64_t>(a.steps, 1), 256)), 128,
        static_cast<uint64_t>(a.seed));
  else
    data = open_dataset(a.data);
  if (data->classes().empty()) fail(data->path() + ": has no labels (a column label or class)");
  if (static_cast<int>(data->classes().size()) > classes)
    fail(fmt::format("{}: {} classes, more than the model's {}; use --set model.classes={}", data->path(),
                     data->classes().size(), classes, data->classes().size()));
  std::vector<int64_t> rows;
  for (int64_t i = 0; i < data->size(); ++i)
    if (data->label(i) >= 0) rows.push_back(i);
  return std::make_unique<Loader>(data, rows,
                                  LoaderConfig{.batch = a.batch,
                                               .transform = run.transform,
                                               .training = true,
                                               .seed = static_cast<uint64_t>(a.seed),
                                               .workers = run.workers});
}

void check(const Arguments& a) {
  if (a.steps && a.other == "ref")
    throw UsageError("--steps needs two devices: the reference does not train");
  install_reference_kernels();
#ifdef GM_HAS_SIMT
  install_simt_kernels();
#endif
  CheckSide side{a.device, a.precision == "bf16"}, other{a.other, a.other_precision == "bf16"};
  if (side.device == "auto") side.device = no_cuda_reason().empty() ? "cuda" : "cpu";
  for (CheckSide* s : {&side, &other})
    if (s->device.starts_with("cuda")) open_device(s->device);  // its error comes first
  const RunConfig run = read_run_config(load_config(a.config, a.sets), a.config);
  CheckProblem p{.architecture = run.architecture,
                 .batch = a.batch,
                 .seed = static_cast<uint64_t>(a.seed),
                 .label_smoothing = run.train.label_smoothing,
                 .threads = a.threads};
  std::optional<ModelFile> weights;
  if (!a.weights.empty()) {
    weights = read_model(a.weights);
    p.weights = &weights->tensors;
  }
  const auto source = open_source(a, run);
  HostBatch first;
  source->start_epoch(0, 0);
  source->next(first);
  p.pixels = first.pixels;
  p.labels = first.labels;

  const std::string sides = side.str() + " against " + other.str();
  if (!a.json && !a.quiet)
    fmt::print("{} at {} px, batch {}, {}: {}\n", run.architecture.name, run.architecture.input_size, a.batch,
               a.weights.empty() ? "initial weights" : a.weights, sides);
  if (a.json) std::setvbuf(stdout, nullptr, _IOLBF, 1 << 12);  // whole lines, whenever it ends
  Report report(a);
  if (a.mode != "infer") report.tensors("training step", check_training_step(side, other, p));
  if (a.mode != "train") report.tensors("inference", check_inference(side, other, p));
  if (a.steps) {
    Progress progress(!a.quiet);
    const auto losses =
        check_training(side, other, p, run.optimizer, *source, a.steps, [&](const StepLosses& s) {
          progress.update(
              double(s.step + 1) / double(a.steps), "training",
              fmt::format("step {}/{}  loss {:.4f} {:.4f}", s.step + 1, a.steps, s.side, s.other));
        });
    progress.clear();
    report.losses(losses);
  }
  report.finish(sides);
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{
      "Holds one device against another on a network: same weights, images and random draws; every layer's "
      "output, logits, loss, gradients, statistics and where maxima lie, and with --steps the losses of a "
      "training run. Exit code 1 when a difference is beyond its tolerance."};
  Arguments args;
  declare(app, args);
  return gm::run_tool(app, argc, argv, [&] { check(args); });
}
