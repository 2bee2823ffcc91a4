#include "tools/model_weights.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>
#include <optional>

#include "data/keras_config.h"
#include "data/keras_weights.h"
#include "kernels/common/backends.h"
#include "layers/import.h"
#include "tools/cli.h"
#include "tools/model_file.h"
#include "tools/run_folder.h"

namespace gm {

namespace {

struct Arguments {
  std::string file, config, framework, out, variant;
  std::vector<std::string> sets;
  int64_t seed = 0;
  bool allow_missing_head = false;
};

std::string check_weight_file(const std::string& path) {
  return path.ends_with(".safetensors") ? "" : "'" + path + "' does not end in .safetensors";
}

std::string first_few(const std::vector<std::string>& names) {
  std::string text;
  for (size_t i = 0; i < names.size() && i < 5; ++i) text += (i ? ", " : "") + names[i];
  return names.size() > 5 ? text + ", ..." : text;
}

/// Whether one of the --set is of this key, of one below it or of a section that holds it.
bool given(const std::vector<std::string>& sets, const std::string& key) {
  return std::any_of(sets.begin(), sets.end(), [&](const std::string& set) {
    const std::string of = set.substr(0, set.find('='));
    return of == key || of.starts_with(key + ".") || key.starts_with(of + ".");
  });
}

/// Where the input scaling of weights of Keras comes from, for people.
std::string scaling_source(bool whole_model, bool layers_scale, bool normalized) {
  if (layers_scale) return ", as the file's layers scale";
  if (normalized) return ", the file's";
  return std::string(", the configuration's: ") +
         (whole_model ? "the file's layers do not scale" : "weights alone do not tell");
}

void import_model(const Arguments& a) {
  keep_inputs(a.out, {a.file, a.config});
  const Framework from = framework_named(a.framework);
  const YAML::Node config = load_config(a.config, a.sets);
  Architecture architecture = read_architecture(config, a.config);
  if (!a.variant.empty() && from != Framework::timm) fail("--timm-model belongs to --from timm");
  const Architecture configured = architecture;
  adopt_conventions(architecture, from, a.variant);
  install_cpu_kernels();
  const bool hdf5 = from == Framework::keras && !a.file.ends_with(".safetensors");
  TensorFile source = hdf5 ? read_keras_weights(a.file) : read_safetensors(a.file);
  const bool whole_model = source.metadata.contains(kKerasConfig);
  const bool given_scaling = given(a.sets, "input.scaling");
  std::optional<PixelScaling> scaling;
  if (hdf5 && !given_scaling) scaling = take_pixel_scaling(source);
  if (scaling) architecture.mean = scaling->mean, architecture.std = scaling->std;
  Imported imported = import_weights(std::move(source), from, architecture, a.allow_missing_head,
                                     static_cast<uint64_t>(a.seed));
  if (given_scaling) architecture.mean = configured.mean, architecture.std = configured.std;
  imported.tensors.metadata = model_metadata(architecture, config["augment"]);
  imported.tensors.metadata["source"] = a.framework;
  write_safetensors(a.out, imported.tensors);
  if (!imported.unused.empty())
    fmt::print(stderr, "gm_model: warning: {}: {} tensors have no place in the network: {}\n", a.file,
               imported.unused.size(), first_few(imported.unused));
  if (!imported.fresh.empty())
    fmt::print("{} tensors are not in {} and start from fresh values: {}\n", imported.fresh.size(), a.file,
               first_few(imported.fresh));
  const bool guessed = from == Framework::timm && a.variant.empty();
  std::string source_of;
  if (guessed)
    source_of = fmt::format(", as timm's {} (--timm-model for another)", timm_model_of(configured));
  if (hdf5 && !given_scaling)
    source_of = scaling_source(whole_model, scaling.has_value(),
                               architecture.mean != configured.mean || architecture.std != configured.std);
  fmt::print("{}: {}, {} classes, {} tensors; {}{}\n", a.out, architecture.name, architecture.classes,
             imported.tensors.tensors.size(), conventions_text(architecture), source_of);
}

void export_model(const Arguments& a) {
  const Framework to = framework_named(a.framework);
  const ModelFile model = read_model(a.file);
  keep_inputs(a.out, run_files(a.file));
  install_cpu_kernels();
  TensorFile out = export_weights(model.tensors, model.architecture, to);
  if (to == Framework::timm) out.metadata["format"] = "pt";
  write_safetensors(a.out, out);
  fmt::print("{}: {} tensors; the network's {}\n", a.out, out.tensors.size(),
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
  out->add_option("--out", a->out, "file to write (.safetensors)")->required()->check(check_weight_file);

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
