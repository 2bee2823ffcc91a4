#include "tools/model_weights.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <fstream>
#include <memory>

#include "data/keras_config.h"
#include "data/keras_weights.h"
#include "data/keras_writer.h"
#include "data/zip_file.h"
#include "layers/conventions.h"
#include "layers/import.h"
#include "tools/cli.h"
#include "tools/model_file.h"
#include "tools/run_config.h"
#include "tools/run_folder.h"

namespace gm {

namespace {

struct Arguments {
  std::string file, config, framework, out, variant;
  std::vector<std::string> sets;
  int64_t seed = 0;
  bool allow_missing_head = false, quiet = false;
};

std::string check_weight_file(const std::string& path) {
  return path.ends_with(".safetensors") ? "" : "'" + path + "' does not end in .safetensors";
}

/// Of an export: Keras takes .weights.h5 for its newer format.
std::string check_export_file(const std::string& path) {
  const bool legacy = path.ends_with(".h5") && !path.ends_with(".weights.h5");
  return legacy || path.ends_with(".safetensors")
             ? ""
             : "'" + path + "' does not end in .safetensors or, for Keras, .h5 (other than .weights.h5)";
}

std::string first_few(const std::vector<std::string>& names) {
  std::string text;
  for (size_t i = 0; i < names.size() && i < 5; ++i) text += (i ? ", " : "") + names[i];
  return names.size() > 5 ? text + ", ..." : text;
}

/// What --set says has the last word on what file and framework say. Returns whether it says anything.
bool keep_given(Architecture& a, const Architecture& configured, const std::vector<std::string>& sets) {
  bool any = false;
  auto keep = [&](const std::string& key, auto&& take) {
    if (!is_set(sets, key)) return;
    take();
    any = true;
  };
  keep("model.padding", [&] { a.same_padding = configured.same_padding; });
  keep("model.batch_norm.epsilon", [&] { a.bn_epsilon = configured.bn_epsilon; });
  keep("model.batch_norm.momentum", [&] { a.bn_momentum = configured.bn_momentum; });
  keep("model.batch_norm.unbiased", [&] { a.bn_unbiased = configured.bn_unbiased; });
  keep("input.scaling", [&] { a.mean = configured.mean, a.std = configured.std; });
  return any;
}

/// A network with the conventions of its weights, and who said them.
struct Conventions {
  Architecture network;
  bool stored = false, layers_scale = false;  // by gm_model export; by layers of a Keras model
  std::vector<std::string> class_names;       // stored; none: the configuration's
};

/// A timm name beside stored conventions may only repeat them: scripts that always give one must not change
/// what a network computes.
void check_variant(const Arguments& a, const Architecture& configured, Architecture stored) {
  Architecture named = configured;
  adopt_conventions(named, Framework::timm, a.variant);
  keep_given(named, configured, a.sets);
  keep_given(stored, configured, a.sets);
  if (conventions_text(named) != conventions_text(stored))
    fail(fmt::format(
        "{}: notes {}, which --timm-model {} contradicts ({}); leave that out, or say by --set what "
        "differs",
        a.file, conventions_text(stored), a.variant, conventions_text(named)));
}

Conventions adopted_conventions(const Arguments& a, Framework from, const Architecture& configured,
                                TensorFile& source) {
  Conventions c{configured};
  if (const auto it = source.metadata.find(kConventions); it != source.metadata.end()) {
    c.stored = true;
    c.class_names = take_conventions(c.network, it->second, a.file);
    if (!a.variant.empty()) check_variant(a, configured, c.network);
    return c;
  }
  adopt_conventions(c.network, from, a.variant);
  if (from != Framework::keras || is_set(a.sets, "input.scaling")) return c;
  if (const auto scaling = take_pixel_scaling(source)) {
    c.layers_scale = true;
    c.network.mean = scaling->mean, c.network.std = scaling->std;
  }
  return c;
}

/// A file of Keras's own, which may tell more than weights.
bool is_keras_file(const Arguments& a, Framework from) {
  return from == Framework::keras && !a.file.ends_with(".safetensors");
}

/// Where the input scaling of weights of Keras comes from, for people.
std::string scaling_source(bool whole_model, bool layers_scale, bool normalized) {
  if (layers_scale) return ", as the file's layers scale";
  if (normalized) return ", the file's";
  return std::string(", the configuration's: ") +
         (whole_model ? "the file's layers do not scale" : "weights alone do not tell");
}

/// Where the printed conventions come from, for people. `c` is as import_weights leaves it.
std::string conventions_source(const Arguments& a, Framework from, const Architecture& configured,
                               const Conventions& c, bool whole_model, bool any_given) {
  if (c.stored)
    return std::string(", as gm_model export noted in the file") + (any_given ? ", but for --set" : "");
  if (from == Framework::timm && a.variant.empty())
    return fmt::format(", as timm's {} (--timm-model for another)", timm_model_of(configured));
  if (!is_keras_file(a, from) || is_set(a.sets, "input.scaling")) return "";
  return scaling_source(whole_model, c.layers_scale,
                        c.network.mean != configured.mean || c.network.std != configured.std);
}

/// The number of classes is the file's; one that --set gives can only agree.
void check_classes(const Arguments& a, const Architecture& configured, const Architecture& network) {
  const bool said = is_set(a.sets, "model.classes") || is_set(a.sets, "model.class_names");
  if (said && network.classes != configured.classes)
    fail(fmt::format("{}: its classifier has {} classes, --set says {}", a.file, network.classes,
                     configured.classes));
}

/// Class names that the file has notes of are those of its classifier, if that is in the file.
void name_classes(const Arguments& a, const Imported& imported, Conventions& c) {
  const bool fresh =
      std::find(imported.fresh.begin(), imported.fresh.end(), "predictions/bias") != imported.fresh.end();
  if (fresh || is_set(a.sets, "model.class_names")) return;
  if (c.class_names.size() == static_cast<size_t>(c.network.classes)) c.network.class_names = c.class_names;
}

void tell_leftovers(const Arguments& a, const Imported& imported) {
  if (!imported.unused.empty())
    say(fmt::format("gm_model: warning: {}: {} tensors have no place in the network: {}", a.file,
                    imported.unused.size(), first_few(imported.unused)));
  if (!imported.fresh.empty() && !a.quiet)
    fmt::print("{} tensors are not in {} and start from fresh values: {}\n", imported.fresh.size(), a.file,
               first_few(imported.fresh));
}

/// Whether torch.save wrote it: an archive or, before PyTorch 1.6, a pickle. Keras has archives as well.
bool is_torch_file(const std::string& path, Framework from) {
  std::ifstream in(path, std::ios::binary);
  char first[9] = {};
  in.read(first, sizeof first);
  // 0x80 and the version begin a pickle; safetensors may begin so too, but have a brace behind the length.
  if (first[0] == '\x80' && first[1] >= 2 && first[1] <= 5 && first[8] != '{') return true;
  const bool torch_name = path.ends_with(".pt") || path.ends_with(".pth");
  return is_zip(path) && (from == Framework::keras ? torch_name : !path.ends_with(".keras"));
}

TensorFile read_weights(const Arguments& a, Framework from) {
  if (is_torch_file(a.file, from))
    fail(a.file +
         ": a file of torch.save, which only Python reads; convert its state_dict there: "
         "safetensors.torch.save_file(torch.load('FILE', map_location='cpu'), 'FILE.safetensors')");
  return is_keras_file(a, from) ? read_keras_weights(a.file) : read_safetensors(a.file);
}

void import_model(const Arguments& a) {
  keep_inputs(a.out, {a.file, a.config});
  const Framework from = framework_named(a.framework);
  if (!a.variant.empty() && from != Framework::timm) fail("--timm-model belongs to --from timm");
  const YAML::Node config = load_config(a.config, a.sets);
  const Architecture configured = read_architecture(config, a.config);
  TensorFile source = read_weights(a, from);
  const bool whole_model = source.metadata.contains(kKerasConfig);
  Conventions c = adopted_conventions(a, from, configured, source);
  const Architecture noted = c.network;
  Imported imported =
      import_weights(std::move(source), from, c.network, a.allow_missing_head, static_cast<uint64_t>(a.seed));
  if (c.stored) c.network.mean = noted.mean, c.network.std = noted.std;  // layers of the file are rounded
  check_classes(a, configured, c.network);
  name_classes(a, imported, c);
  const bool any_given = keep_given(c.network, configured, a.sets);
  imported.tensors.metadata = model_metadata(c.network, config["augment"]);
  imported.tensors.metadata["source"] = a.framework;
  write_safetensors(a.out, imported.tensors);
  tell_leftovers(a, imported);
  if (a.quiet) return;
  fmt::print("{}: {}, {} classes, {} tensors; {}{}\n", a.out, c.network.name, c.network.classes,
             imported.tensors.tensors.size(), conventions_text(c.network),
             conventions_source(a, from, configured, c, whole_model, any_given));
}

void export_model(const Arguments& a) {
  const Framework to = framework_named(a.framework);
  const bool hdf5 = a.out.ends_with(".h5");
  if (hdf5 && to != Framework::keras)
    throw UsageError("--out " + a.out + ": --to " + a.framework + " writes .safetensors; .h5 is Keras's");
  const ModelFile model = read_model(a.file);
  keep_inputs(a.out, run_files(a.file));
  OrderedTensors out = hdf5 ? export_keras_weights(model.tensors, model.architecture)
                            : OrderedTensors{export_weights(model.tensors, model.architecture, to), {}};
  out.file.metadata[kConventions] = stored_conventions(model.architecture);
  if (to == Framework::timm) out.file.metadata["format"] = "pt";
  if (hdf5)
    write_keras_weights(a.out, out.file, out.order);
  else
    write_safetensors(a.out, out.file);
  if (a.quiet) return;
  fmt::print("{}: {} tensors; the network's {}\n", a.out, out.file.tensors.size(),
             conventions_text(model.architecture));
}

}  // namespace

std::function<bool()> declare_weight_commands(CLI::App& app) {
  auto a = std::make_shared<Arguments>();
  app.require_subcommand(0, 1);
  CLI::App* import =
      app.add_subcommand("import", "turn weights of Keras, timm or torchvision into a model file");
  import->add_option("weights", a->file, "Keras .keras, .h5 or .weights.h5, or .safetensors")->required();
  import->add_option("--config", a->config, "the network (YAML)")->required();
  import->add_option("--from", a->framework, "keras, timm or torchvision")
      ->required()
      ->check(CLI::IsMember({"keras", "timm", "torchvision"}));
  import->add_option("--out", a->out, "model file to write (.safetensors)")
      ->required()
      ->check(check_weight_file);
  import->add_option("--timm-model", a->variant,
                     "timm's name of the model, with or without its tag, which decides padding, epsilon and "
                     "input scaling (default: by the configuration; what is taken is printed)");
  import->add_flag("--allow-missing-head", a->allow_missing_head,
                   "classifier, hidden layer and attention may be missing and start from fresh values");
  import->add_option("--seed", a->seed, "of the fresh values")->check(check_not_negative);
  add_sets(*import, a->sets, "override one key, e.g. --set input.size=384");

  CLI::App* out = app.add_subcommand("export", "write a model's weights under another framework's names");
  out->add_option("model", a->file, "run folder or model file")->required();
  out->add_option("--to", a->framework, "keras or timm")->required()->check(CLI::IsMember({"keras", "timm"}));
  out->add_option("--out", a->out, "file to write: .safetensors, or for Keras's load_weights .h5")
      ->required()
      ->check(check_export_file);

  for (CLI::App* command : {import, out})
    command->add_flag("--quiet", a->quiet, "print errors and warnings only");

  return [a, import, out, &app] {
    for (const CLI::Option* o : app.get_options())  // those of the command without import and export
      if (o->count() && (import->parsed() || out->parsed()))
        throw CLI::ValidationError(o->get_name() + " before " + app.get_subcommands()[0]->get_name() +
                                   " has no effect; see gm_model " + app.get_subcommands()[0]->get_name() +
                                   " --help");
    if (import->parsed()) import_model(*a);
    if (out->parsed()) export_model(*a);
    return import->parsed() || out->parsed();
  };
}

}  // namespace gm
