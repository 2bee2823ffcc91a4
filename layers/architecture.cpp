#include "layers/architecture.h"

#include <algorithm>
#include <cmath>

#include "kernels/common/error.h"

namespace gm {

namespace {
const std::vector<std::string> kActivations{"none", "silu", "relu", "relu6", "sigmoid"};

Act activation_named(const std::string& name) {
  return static_cast<Act>(std::find(kActivations.begin(), kActivations.end(), name) - kActivations.begin());
}
const std::string& activation_name(Act act) { return kActivations[static_cast<size_t>(act)]; }

// In the order of the enumerations.
const std::vector<std::string> kBlocks{"mbconv", "fused_mbconv"}, kAttentions{"none", "se", "cbam"};

template <class Enum>
Enum named(Section& s, const char* key, Enum otherwise, const std::vector<std::string>& names) {
  const std::string name = s.text(key, names[static_cast<size_t>(otherwise)], names);
  return static_cast<Enum>(std::find(names.begin(), names.end(), name) - names.begin());
}

AttentionSpec read_attention(Section s) {
  AttentionSpec a;
  a.type = named(s, "type", a.type, kAttentions);
  a.reduction = static_cast<int>(s.integer("reduction", a.reduction, 1, 65536));
  a.bias = s.flag("bias", a.bias);
  a.kernel = static_cast<int>(s.integer("kernel", a.kernel, 1, 11));
  if (a.kernel % 2 == 0) s.error("kernel", "must be odd");
  a.authors = s.text("variant", "keras", {"keras", "authors"}) == "authors";
  s.finish();
  return a;
}

HiddenSpec read_hidden(Section s) {
  HiddenSpec h;
  h.units = static_cast<int>(s.integer("units", 0, 0, 1 << 20));
  h.act = activation_named(s.text("activation", activation_name(h.act), kActivations));
  h.l2 = s.number("l2", 0, 0, 10);
  h.dropout = s.number("dropout", 0, 0, 0.95);
  s.finish();
  return h;
}

/// S2 equations 4-6: depth alpha^phi, width beta^phi; the resolution gamma^phi is written out as input.size.
struct Scaling {
  double depth, width;
  bool guard;

  explicit Scaling(Section s) {
    const double phi = s.number("phi", 0, 0, 20);
    depth = std::pow(s.number("alpha", 1, 1, 4), phi);
    width = std::pow(s.number("beta", 1, 1, 4), phi);
    guard = s.flag("guard", true);
    s.finish();
  }
  int filters(Section& s, const char* key) const {
    const int64_t base = s.integer(key, 0, 1, 65536);
    if (base == 0) s.missing(key);
    const double scaled = static_cast<double>(base) * width;
    if (scaled > 65536) s.error(key, "model.scaling makes more than 65536 of it");
    return width == 1 ? static_cast<int>(base) : round_filters(scaled, guard);
  }
  int layers(Section& s, const char* key) const {
    const double scaled = static_cast<double>(s.integer(key, 1, 1, 1000)) * depth;
    if (scaled > 1000) s.error(key, "model.scaling makes more than 1000 of it");
    return round_layers(scaled);
  }
};

void read_batch_norm(Section s, Architecture& a) {
  a.bn_momentum = s.number("momentum", 0.99, 0, 1);
  a.bn_epsilon = s.number("epsilon", 1e-3, 1e-12, 1);
  a.bn_unbiased = s.flag("unbiased", false);
  s.finish();
}

void read_stem(Section s, const Scaling& scaling, Architecture& a) {
  a.stem_kernel = static_cast<int>(s.integer("kernel", 3, 1, 11));
  a.stem_stride = static_cast<int>(s.integer("stride", 2, 1, 4));
  a.stem_filters = scaling.filters(s, "filters");
  s.finish();
}

/// se: that of depthwise stages which do not say.
StageSpec read_stage(Section& s, BlockType block, double se, const Scaling& scaling) {
  StageSpec stage;
  stage.block = named(s, "block", block, kBlocks);
  const bool depthwise = stage.block == BlockType::mbconv;
  stage.expand = static_cast<int>(s.integer("expand", 1, 1, 64));
  stage.kernel = static_cast<int>(s.integer("kernel", 3, 1, 11));
  if (stage.kernel % 2 == 0) s.error("kernel", "must be odd");
  stage.stride = static_cast<int>(s.integer("stride", 1, 1, depthwise ? 2 : 4));
  stage.filters = scaling.filters(s, "filters");
  stage.layers = scaling.layers(s, "layers");
  stage.se = s.number("se", depthwise ? se : 0, 0, 1);
  stage.residual = s.flag("residual", true);
  s.finish();
  return stage;
}

std::vector<StageSpec> read_stages(Section& model, double se, const Scaling& scaling) {
  std::vector<StageSpec> stages;
  // One number instead of a block type in each stage: S1 Table 1 varies the share of fused stages.
  const bool by_number = model.has("fused_stages");
  const int64_t fused = model.integer("fused_stages", 0, 0, 1000);
  for (Section& s : model.list("stages")) {
    if (by_number && s.has("block")) s.error("block", "model.fused_stages decides it");
    const bool fuse = by_number && static_cast<int64_t>(stages.size()) < fused;
    stages.push_back(read_stage(s, fuse ? BlockType::fused_mbconv : BlockType::mbconv, se, scaling));
  }
  if (fused > static_cast<int64_t>(stages.size()))
    model.error("fused_stages", "there are " + std::to_string(stages.size()) + " stages");
  if (stages.empty()) model.missing("stages");
  return stages;
}

void read_input(Section s, Architecture& a) {
  a.input_size = static_cast<int>(s.integer("size", 0, 8, 4096));
  if (a.input_size == 0) s.missing("size");
  Section scale = s.section("scaling");
  a.mean = scale.numbers("mean", a.mean, 3);
  a.std = scale.numbers("std", a.std, 3);
  for (double deviation : a.std)
    if (!(deviation > 0)) scale.error("std", "must be positive");
  scale.finish();
  s.finish();
}

}  // namespace

const std::string& block_name(BlockType block) { return kBlocks[static_cast<size_t>(block)]; }
const std::string& attention_name(AttentionType attention) {
  return kAttentions[static_cast<size_t>(attention)];
}

int round_filters(double filters, bool guard) {
  const int n = std::max(8, static_cast<int>(filters + 4) / 8 * 8);
  return guard && n < 0.9 * filters ? n + 8 : n;
}

// The small guard keeps 1.1 * 50 = 55.00000000000001 from becoming 56 layers.
int round_layers(double layers) { return static_cast<int>(std::ceil(layers - 1e-9)); }

Architecture read_architecture(const YAML::Node& config, const std::string& where) {
  Section root(config, "", where);
  root.allow({"recipe", "data", "augment", "optimizer", "schedule", "train", "search"});
  for (const char* section : {"model", "input"})
    if (!root.has(section)) root.missing(section);

  Architecture a;
  Section model = root.section("model");
  a.name = model.text("name", "network");
  a.classes = static_cast<int>(model.integer("classes", 0, 2, 10000));
  a.class_names = model.texts("class_names");
  if (a.classes == 0) model.missing("classes");
  if (!a.class_names.empty() && static_cast<int>(a.class_names.size()) != a.classes)
    model.error("class_names", std::to_string(a.class_names.size()) + " names for " +
                                   std::to_string(a.classes) + " classes");
  a.act = activation_named(model.text("activation", "silu", {kActivations.begin() + 1, kActivations.end()}));
  a.same_padding = model.text("padding", "same", {"same", "symmetric"}) == "same";
  a.dropout = model.number("dropout", 0, 0, 0.95);
  a.stochastic_depth = model.number("stochastic_depth", 0, 0, 0.95);
  const double se = model.number("se", 0, 0, 1);

  read_batch_norm(model.section("batch_norm"), a);
  const Scaling scaling(model.section("scaling"));
  read_stem(model.section("stem"), scaling, a);
  a.stages = read_stages(model, se, scaling);
  Section head = model.section("head");
  if (head.has("filters")) a.head_filters = scaling.filters(head, "filters");
  head.finish();
  a.attention = read_attention(model.section("attention"));
  a.hidden = read_hidden(model.section("hidden"));
  model.finish();

  read_input(root.section("input"), a);
  root.finish();
  return a;
}

std::string architecture_yaml(const Architecture& a) {
  YAML::Node root, model, input;
  model["name"] = a.name;
  model["classes"] = a.classes;
  if (!a.class_names.empty()) model["class_names"] = a.class_names;
  model["activation"] = activation_name(a.act);
  model["padding"] = a.same_padding ? "same" : "symmetric";
  model["batch_norm"]["momentum"] = a.bn_momentum;
  model["batch_norm"]["epsilon"] = a.bn_epsilon;
  model["batch_norm"]["unbiased"] = a.bn_unbiased;
  model["dropout"] = a.dropout;
  model["stochastic_depth"] = a.stochastic_depth;
  model["stem"]["kernel"] = a.stem_kernel;
  model["stem"]["stride"] = a.stem_stride;
  model["stem"]["filters"] = a.stem_filters;
  for (const StageSpec& s : a.stages) {
    YAML::Node n;
    n["block"] = block_name(s.block);
    n["expand"] = s.expand;
    n["kernel"] = s.kernel;
    n["stride"] = s.stride;
    n["filters"] = s.filters;
    n["layers"] = s.layers;
    n["se"] = s.se;
    if (!s.residual) n["residual"] = false;
    n.SetStyle(YAML::EmitterStyle::Flow);
    model["stages"].push_back(n);
  }
  if (a.head_filters) model["head"]["filters"] = a.head_filters;
  if (a.attention.type != AttentionType::none) {
    YAML::Node n;
    n["type"] = attention_name(a.attention.type);
    n["reduction"] = a.attention.reduction;
    n["bias"] = a.attention.bias;
    n["kernel"] = a.attention.kernel;
    n["variant"] = a.attention.authors ? "authors" : "keras";
    model["attention"] = n;
  }
  if (a.hidden.units) {
    YAML::Node n;
    n["units"] = a.hidden.units;
    n["activation"] = activation_name(a.hidden.act);
    n["l2"] = a.hidden.l2;
    n["dropout"] = a.hidden.dropout;
    model["hidden"] = n;
  }
  input["size"] = a.input_size;
  input["scaling"]["mean"] = a.mean;
  input["scaling"]["std"] = a.std;
  root["model"] = model;
  root["input"] = input;
  return yaml_text(root);
}

}  // namespace gm
