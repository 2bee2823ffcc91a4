// gm_infer --model DIR|FILE INPUT...: class probabilities of images, streamed to CSV, HDF5 or FITS.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <numeric>

#include "data/checked_jpegs.h"
#include "data/joined_dataset.h"
#include "tools/classify.h"
#include "tools/cli.h"
#include "tools/kept_predictions.h"
#include "tools/run_folder.h"

namespace {

using namespace gm;

struct Arguments {
  std::string model, out = "-", device = "auto", precision = "f32", decode = "auto";
  std::vector<std::string> inputs;
  int64_t batch = 64, seed = 0;
  int threads = 0;
  Passes passes;
  bool logits = false, strict = false, resume = false, quiet = false;
};

void declare(CLI::App& app, Arguments& a) {
  app.add_option("--model", a.model, "run folder or weight file")->required();
  app.add_option("inputs", a.inputs,
                 "images, folders of images, catalogs (.csv) or Galaxy10-layout .h5 files")
      ->required();
  app.add_option("--out", a.out, "predictions as .csv, .h5 or .fits (default: CSV on standard output)");
  app.add_flag("--logits", a.logits, "also write the logits z_<class>");
  declare_passes(app, a.passes);
  app.add_flag("--strict", a.strict, "fail on the first unreadable image instead of skipping it");
  app.add_flag("--resume", a.resume, "go on after the rows that a run which did not end kept beside --out");
  app.add_option("--batch", a.batch, "images per step")->capture_default_str()->check(CLI::Range(1, 65536));
  app.add_option("--precision", a.precision, "f32, tf32 (of a card's products) or bf16")
      ->capture_default_str()
      ->check(CLI::IsMember({"f32", "tf32", "bf16"}));
  add_device(app, a.device, a.threads);
  app.add_option("--decode", a.decode,
                 "where JPEG files are decoded: auto (on the card, where nvJPEG is found, files are many and "
                 "it is the faster one), card, or cpu, which gives the same pixels on every machine")
      ->capture_default_str()
      ->check(CLI::IsMember({"auto", "card", "cpu"}));
  app.add_option("--seed", a.seed, "of the masks of --mc-dropout")->check(check_not_negative);
  app.add_flag("--quiet", a.quiet, "print errors only");
}

/// What --device auto and --decode auto came to, and why.
std::string choices_line(const Arguments& args, const Device& device, const JpegDecoder* jpegs,
                         const std::string& no_jpegs) {
  const std::string text = device_line(device, args.device);
  if (device.backend() == Backend::cpu) return text;
  if (jpegs) return text + "; JPEG files: " + jpegs->description();
  return text + "; JPEG files: processor" + (no_jpegs.empty() ? "" : " - " + no_jpegs);
}

/// All inputs as one set, so that batches reach over them. Every one is opened before the first image is
/// classified: a misspelt path costs nothing.
std::shared_ptr<const Dataset> open_inputs(const std::vector<std::string>& paths,
                                           const std::shared_ptr<JpegDecoder>& jpegs = nullptr) {
  std::vector<std::shared_ptr<const Dataset>> sets;
  for (const auto& path : paths) {
    sets.push_back(open_dataset(path, {.labels = false, .jpegs = jpegs}));
    sets.back()->release();  // as many may be open as there are descriptors
  }
  return std::make_shared<JoinedDataset>(std::move(sets));
}

/// Rows that a table tells apart by their order only: images of one name in several folders, numbered rows of
/// several files. Empty where every id stands for one image.
std::string shared_ids_line(const Dataset& data) {
  const SharedIds shared = shared_ids(data);
  if (shared.rows == 0) return "";
  auto where = [&](int64_t row) { return data.file(row).empty() ? data.path_of(row) : data.file(row); };
  return fmt::format(
      "note: {} of {} images have an id that an earlier one has (\"{}\": {} and {}); rows are in "
      "the order of the inputs",
      shared.rows, data.size(), data.id(shared.first), where(shared.earlier), where(shared.first));
}

/// Images that have a file of their own.
int64_t count_files(const Dataset& data) {
  int64_t files = 0;
  for (int64_t row = 0; row < data.size(); ++row) files += !data.file(row).empty();
  return files;
}

/// The card's decoder for `files` pictures; null, and `reason` may say why, where the processor is to decode.
std::shared_ptr<JpegDecoder> open_jpegs(const Arguments& args, Device& device, int64_t files,
                                        std::string& reason) {
  if (args.decode == "cpu") return nullptr;
  const bool any = args.decode == "card";
  // It took 9 seconds to start on an H200, in which a processor decodes some 800 pictures of 424 px.
  const int64_t least = int64_t{4000} * available_processors();
  if (!any && files < least) {
    if (files > 0) reason = fmt::format("the card's decoder is tried from {} files on", least);
    return nullptr;
  }
  auto decoder = device.make_jpeg_decoder(reason);
  if (!decoder && any) fail("--decode card: " + (reason.empty() ? "there is no card" : reason));
  if (!decoder) return nullptr;
  return std::make_shared<CheckedJpegDecoder>(
      std::move(decoder), args.quiet,
      any ? CheckedJpegDecoder::Clock() : CheckedJpegDecoder::Clock(seconds_now));
}

/// What the rows of one file have in common. The batch is free: a run that is out of memory goes on with a
/// smaller one.
KeptPredictions::Traits traits_of(const Arguments& args, const ModelFile& model, const Dataset& data) {
  if (args.out == "-") return {};  // nothing is kept
  const int masks = args.passes.dropout;
  return {{"model", mark_of(model)},
          {"images", mark_of(data)},
          {"--logits", args.logits ? "on" : "off"},
          {"--tta", args.passes.symmetries ? "on" : "off"},
          {"--mc-dropout", masks ? std::to_string(masks) : "off"},
          {"--seed", masks ? std::to_string(args.seed) : "of no effect"},
          {"--precision", args.precision}};
}

/// Classifies what the file does not answer for yet.
void classify(const std::shared_ptr<const Dataset>& data, Classifier& classifier, KeptPredictions& file) {
  const int64_t first = file.first(), step = classifier.reader().batch();
  std::vector<int64_t> rows(static_cast<size_t>(data->size() - first));
  std::iota(rows.begin(), rows.end(), first);
  if (!rows.empty())
    classifier.run(data, rows, [&](const auto& of, auto& predictions) {
      // A batch may have ended with images that could not be read.
      const int64_t last = of[predictions.size() - 1], batches = (last - first) / step + 1;
      file.write(predictions, std::min(data->size(), first + batches * step));
    });
  if (first == 0) classifier.reader().expect_some();
  file.finish();
}

void infer(const Arguments& args) {
  if (args.resume && args.out == "-")
    throw UsageError("--resume needs --out FILE, the predictions to continue");
  keep_inputs(args.out, args.inputs);
  keep_inputs(args.out, run_files(args.model));
  check_partial(args.out, args.resume);
  const ModelFile model = read_model(args.model);
  auto device = open_device(args.device, {.threads = args.threads, .tf32 = args.precision == "tf32"});
  auto data = open_inputs(args.inputs);
  std::string no_jpegs;
  const std::shared_ptr<JpegDecoder> jpegs = open_jpegs(args, *device, count_files(*data), no_jpegs);
  if (jpegs) data = open_inputs(args.inputs, jpegs);
  Predictor predictor(*device, model, rows_of(*device, args.passes, args.batch, data->size()),
                      {.bf16 = args.precision == "bf16",
                       .sampling = args.passes.dropout > 0,
                       .seed = static_cast<uint64_t>(args.seed),
                       .images = on_device(*device, args.passes)});
  PredictionColumns columns = columns_for(*data, args.passes);
  columns.logits = args.logits;
  const std::atomic<bool>& stop = stop_on_signals();  // before the first file
  KeptPredictions file(
      args.out, class_names(model.architecture), columns,
      {.traits = traits_of(args, model, *data), .total = data->size(), .resume = args.resume});
  if (!args.quiet) say(choices_line(args, *device, jpegs.get(), no_jpegs));
  if (const std::string line = args.quiet ? "" : shared_ids_line(*data); !line.empty()) say(line);
  if (!args.quiet && args.resume)
    say(fmt::format("resuming after {} of {} images", file.first(), data->size()));

  Classifier classifier(predictor, model.transform,
                        {.tool = "gm_infer",
                         .doing = "classifying",
                         .done = "classified",
                         .total = data->size(),
                         .before = file.first(),
                         .strict = args.strict,
                         .quiet = args.quiet,
                         .stop = &stop,
                         .lost = ""},
                        args.passes);
  auto fail_and_keep = [&](const std::string& error) {
    std::string kept = file.keep();
    if (kept.empty() && stop) kept = "no file was written";
    fail(error + (kept.empty() ? "" : "; " + kept));
  };
  try {
    classify(data, classifier, file);
  } catch (const std::bad_alloc&) {
    fail_and_keep("out of memory");
  } catch (const std::exception& e) {
    fail_and_keep(e.what());
  }
  if (!args.quiet)
    say(fmt::format("{}{}", classifier.reader().summary(), args.out == "-" ? "" : ": " + args.out));
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{
      "Classifies galaxy images. Columns: id_str, class, p_<class>..., and ra and dec where they are known. "
      "An image that already has the model's input size is used as it is, pixel for pixel."};
  Arguments args;
  declare(app, args);
  return gm::run_tool(app, argc, argv, [&] { infer(args); });
}
