// gm_explain --model DIR|FILE INPUT... --out DIR: what a trained network looks at.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <filesystem>
#include <map>
#include <set>

#include "data/file_names.h"
#include "tools/cli.h"
#include "tools/explainer.h"
#include "tools/pictures/explain_picture.h"
#include "tools/read_images.h"

namespace {

using namespace gm;
namespace fs = std::filesystem;

constexpr size_t kSheetRows = 12;

struct Arguments {
  std::string model, out, method = "all", layer, target = "predicted", device = "auto";
  std::vector<std::string> inputs;
  int64_t batch = 8, seed = 0;
  int threads = 0, samples = 50;
  double noise = 0.15;
  bool strict = false, quiet = false;
};

void declare(CLI::App& app, Arguments& a) {
  app.add_option("--model", a.model, "run folder or weight file")->required();
  app.add_option("inputs", a.inputs,
                 "images, folders of images, catalogs (.csv) or Galaxy10-layout .h5 files")
      ->required();
  app.add_option("--out", a.out, "folder for explain.h5, a picture of each image and sheet.png")->required();
  app.add_option("--method", a.method, "saliency, smoothgrad, gradcam or all")
      ->capture_default_str()
      ->check(CLI::IsMember({"saliency", "smoothgrad", "gradcam", "all"}));
  app.add_option("--layer", a.layer,
                 "layer whose feature map Grad-CAM weighs (default: the one before global pooling)");
  app.add_option("--class", a.target,
                 "class to explain: its name or number, predicted, or label (the true one)")
      ->capture_default_str();
  app.add_option("--samples", a.samples, "SmoothGrad: noisy copies of each image")
      ->capture_default_str()
      ->check(CLI::Range(1, 100000));
  app.add_option("--noise", a.noise, "SmoothGrad: their noise, as a share of the image's range of values")
      ->capture_default_str()
      ->check(CLI::Range(0.0, 10.0))
      ->check(check_not_negative);
  app.add_flag("--strict", a.strict, "fail on the first unreadable image instead of skipping it");
  app.add_option("--batch", a.batch, "images per step")->capture_default_str()->check(CLI::Range(1, 65536));
  add_device(app, a.device, a.threads);
  app.add_option("--seed", a.seed, "of SmoothGrad's noise")->capture_default_str()->check(check_not_negative);
  app.add_flag("--quiet", a.quiet, "print errors only");
}

/// The class that --class names; -1 for predicted and label.
int fixed_class(const std::string& target, const std::vector<std::string>& classes) {
  if (target == "predicted" || target == "label") return -1;
  for (const bool by_name : {true, false})
    for (size_t c = 0; c < classes.size(); ++c)
      if (target == (by_name ? classes[c] : std::to_string(c))) return static_cast<int>(c);
  fail(fmt::format("--class {}: not predicted, label or one of the model's: {}", target,
                   fmt::join(by_nearness(target, classes), ", ")));
}

struct Input {
  std::shared_ptr<Dataset> data;
  std::vector<int64_t> rows;
};

/// Labels are needed for --class label and shown where the data have the model's classes.
std::shared_ptr<Dataset> open_input(const std::string& path, const std::vector<std::string>& classes,
                                    bool labels_needed) {
  if (labels_needed) return open_dataset(path, {.classes = classes});
  try {
    return open_dataset(path, {.classes = classes});
  } catch (const Error&) {
    return open_dataset(path, {.labels = false});
  }
}

struct Inputs {
  std::vector<Input> sets;
  int64_t images = 0, unlabelled = 0;  // to be explained; left out
};

Inputs open_inputs(const Arguments& args, const std::vector<std::string>& classes) {
  const bool by_label = args.target == "label";
  Inputs all;
  for (const auto& path : args.inputs) {
    Input in{open_input(path, classes, by_label), {}};
    for (int64_t row = 0; row < in.data->size(); ++row)
      by_label&& in.data->label(row) < 0 ? void(++all.unlabelled) : in.rows.push_back(row);
    if (in.rows.empty()) fail(path + ": has no labels (a column label or class)");
    all.images += static_cast<int64_t>(in.rows.size());
    all.sets.push_back(std::move(in));
  }
  return all;
}

/// File names from identifiers: harmless characters, no name twice.
class Names {
 public:
  std::string operator()(const std::string& id) {
    std::string name = id.empty() ? "image" : id;
    for (char& c : name)
      if (!std::isalnum(static_cast<unsigned char>(c)) && c != '-' && c != '_' && c != '.') c = '_';
    if (name[0] == '.') name[0] = '_';
    int& number = numbers_.try_emplace(name, 1).first->second;
    std::string unique = name;
    while (!used_.insert(unique).second) unique = name + "_" + std::to_string(++number);
    return unique;
  }

 private:
  std::set<std::string> used_{"sheet"};
  std::map<std::string, int> numbers_;  // the last one behind a name
};

/// Fails where the pictures of `out` could replace pictures of the data.
void keep_pictures(const std::string& out, const Dataset& data) {
  std::set<std::string> folders;
  for (int64_t row = 0; row < data.size(); ++row)
    if (const std::string file = data.file(row); lower_extension(file) == ".png")
      folders.insert(fs::path(file).parent_path().string());
  std::error_code none;
  for (const std::string& folder : folders)
    if (fs::equivalent(folder.empty() ? "." : folder, out, none))
      fail(out + ": holds images of " + data.path() + ", which --out could replace; choose another folder");
}

std::string file_in(const std::string& folder, const std::string& name) {
  return (fs::path(folder) / name).string();
}

/// A row of the arrays and a picture for every image; sheet.png of the first ones.
void write_explanations(const std::string& out, const Inputs& inputs, const std::vector<std::string>& classes,
                        const Explainer::Choice& choice, Explainer& explainer, ImageReader& reader,
                        AttributionFile& arrays) {
  Names names;
  std::vector<Explanation> sheet;
  for (const Input& in : inputs.sets) {
    reader.run(in.data, in.rows, [&](const HostBatch& batch) {
      auto rows = explainer.explain(*in.data, batch, choice);
      arrays.write(rows);
      for (Explanation& e : rows) {
        write_image(file_in(out, names(e.id) + ".png"), explain_picture({&e, 1}, classes, explainer.layer()));
        if (sheet.size() < kSheetRows) sheet.push_back(std::move(e));
      }
    });
  }
  reader.expect_some();
  arrays.finish();
  write_image(file_in(out, "sheet.png"), explain_picture(sheet, classes, explainer.layer()));
}

void explain(const Arguments& args) {
  const ModelFile model = read_model(args.model);
  const auto classes = class_names(model.architecture);
  const int fixed = fixed_class(args.target, classes);
  const Explainer::Choice choice = [&](int label, int predicted) {
    return args.target == "label" ? label : fixed >= 0 ? fixed : predicted;
  };
  const Inputs inputs = open_inputs(args, classes);

  auto wanted = [&](const char* method) { return args.method == "all" || args.method == method; };
  auto device = open_device(args.device, {.threads = args.threads});
  Explainer explainer(*device, model, std::min(args.batch, inputs.images),
                      {.saliency = wanted("saliency"),
                       .smooth = wanted("smoothgrad"),
                       .cam = wanted("gradcam"),
                       .layer = args.layer,
                       .smooth_grad = {args.samples, args.noise, static_cast<uint64_t>(args.seed)}});
  make_folder(args.out);
  const std::string file = file_in(args.out, "explain.h5");
  keep_inputs(file, args.inputs);
  for (const Input& in : inputs.sets) keep_pictures(args.out, *in.data);
  const std::atomic<bool>& stop = stop_on_signals();  // before the first file
  AttributionFile arrays(file, classes, explainer.shape(),
                         {{"model", model.path},
                          {"class", args.target},
                          {"layer", explainer.layer()},
                          {"smoothgrad_samples", std::to_string(args.samples)},
                          {"smoothgrad_noise", fmt::format("{}", args.noise)},
                          {"smoothgrad_seed", std::to_string(args.seed)}});
  if (!args.quiet) {
    say(device_line(*device, args.device));
    if (inputs.unlabelled) say(fmt::format("{} images without a label left out", inputs.unlabelled));
    if (wanted("gradcam")) say(fmt::format("Grad-CAM of {}", explainer.layer_text()));
  }

  ImageReader reader(model.transform, explainer.batch(),
                     {.tool = "gm_explain",
                      .doing = "explaining",
                      .done = "explained",
                      .total = inputs.images,
                      .strict = args.strict,
                      .quiet = args.quiet,
                      .stop = &stop,
                      .lost = "explain.h5 was not written"});
  write_explanations(args.out, inputs, classes, choice, explainer, reader, arrays);
  if (!args.quiet) say(fmt::format("{}: {}", reader.summary(), args.out));
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{
      "Shows what a trained network looks at: saliency, SmoothGrad and Grad-CAM of a class score (before the "
      "softmax), as pictures over the galaxies and as arrays in explain.h5. --out also receives sheet.png "
      "with the first images."};
  Arguments args;
  declare(app, args);
  return gm::run_tool(app, argc, argv, [&] { explain(args); });
}
