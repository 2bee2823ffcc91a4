#include "tools/run_config.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <span>
#include <sstream>
#include <type_traits>

#include "data/dataset.h"
#include "data/loader.h"

namespace gm {

namespace fs = std::filesystem;

namespace {

// The key `name` of a section: one of the keys in `names`.
template <class Kind>
Kind named(Section& s, Kind otherwise, std::span<const KindName> names) {
  std::vector<std::string> keys;
  for (const KindName& n : names) keys.push_back(n.key);
  const std::string key = s.text("name", keys.at(static_cast<size_t>(otherwise)), keys);
  return static_cast<Kind>(std::find(keys.begin(), keys.end(), key) - keys.begin());
}

OptimizerConfig read_optimizer(Section s) {
  OptimizerConfig o;
  o.kind = named(s, o.kind, kOptimizers);
  o.lr = s.number("lr", o.lr, 0, 1000);
  o.beta1 = s.number("beta1", o.beta1, 0, 0.999999999);
  o.beta2 = s.number("beta2", o.beta2, 0, 0.999999999);
  o.epsilon = s.number("epsilon", o.epsilon, 0, 1);
  o.epsilon_hat = s.flag("epsilon_hat", o.epsilon_hat);
  o.momentum = s.number("momentum", o.momentum, 0, 1);
  o.nesterov = s.flag("nesterov", o.nesterov);
  o.weight_decay = s.number("weight_decay", o.weight_decay, 0, 10);
  o.clip_norm = s.number("clip_norm", 0, 0, 1e9);
  o.average = s.number("average", 0, 0, 0.999999999);
  o.accumulate = s.integer("accumulate", 1, 1, 1 << 20);
  s.finish();
  return o;
}

ScheduleConfig read_schedule(Section s) {
  ScheduleConfig c;
  c.kind = named(s, c.kind, kSchedules);
  c.decay = s.number("decay", c.decay, 0, 1000);
  c.warmup_epochs = s.number("warmup_epochs", c.warmup_epochs, 0, 100000);
  c.final_fraction = s.number("final_fraction", c.final_fraction, 0, 1);
  s.finish();
  return c;
}

TrainSettings read_train(Section s) {
  TrainSettings t;
  t.epochs = s.integer("epochs", t.epochs, 1, 1000000);
  t.batch = s.integer("batch", t.batch, 1, 1 << 20);
  t.seed = s.integer("seed", t.seed, 0, int64_t{1} << 53);
  const std::string precision = s.text("precision", "f32", {"f32", "tf32", "bf16"});
  t.bf16 = precision == "bf16";
  t.tf32 = precision == "tf32";
  t.label_smoothing = s.number("label_smoothing", t.label_smoothing, 0, 0.99);
  t.mixup = s.number("mixup", 0, 0, 1);
  t.cutmix = s.number("cutmix", 0, 0, 1);
  t.checkpoint_steps = s.integer("checkpoint_steps", t.checkpoint_steps, 0, int64_t{1} << 40);
  t.patience = s.integer("patience", t.patience, 0, 1000000);
  t.restore_best = s.flag("restore_best", t.restore_best);
  t.recompute = s.flag("recompute", false);
  t.deterministic = s.flag("deterministic", true);
  t.balanced = s.text("class_weights", "none", {"none", "balanced"}) == "balanced";
  t.board_epochs = s.integer("board_epochs", t.board_epochs, 0, 1000000);
  t.init = s.text("init", "");
  t.freeze.layers = s.texts("freeze");
  t.freeze.batch_norm = s.flag("freeze_bn", false);
  Section l2 = s.section("l2");
  for (const std::string& layer : l2.keys()) t.l2[layer] = l2.number(layer, 0, 0, 10);
  s.finish();
  return t;
}

}  // namespace

TransformConfig read_transform(const YAML::Node& config, const std::string& where, int input_size) {
  Section root(config, "", where);
  Section s = root.section("augment");
  const std::string kind = s.text("kind", "none", {"none", "gz", "keras"});
  TransformConfig t = kind == "gz"      ? TransformConfig::gz(input_size)
                      : kind == "keras" ? TransformConfig::keras(input_size)
                                        : TransformConfig::none(input_size);
  TransformConfig::each_number(t, [&](const char* key, auto& value, double least, double most) {
    if constexpr (std::is_integral_v<std::remove_reference_t<decltype(value)>>)
      value =
          static_cast<int>(s.integer(key, value, static_cast<int64_t>(least), static_cast<int64_t>(most)));
    else
      value = s.number(key, value, least, most);
  });
  TransformConfig::each_range(
      t, [&](const char* key, double& first, double& second, double least, double most) {
        const auto given = s.numbers(key, {first, second}, 2);
        first = given[0];
        second = given[1];
        if (!(first >= least && first <= second && second <= most))
          s.error(key, fmt::format("must be {} <= first <= second <= {}", least, most));
      });
  t.flip_x = s.flag("flip_x", t.flip_x);
  t.flip_y = s.flag("flip_y", t.flip_y);
  s.finish();
  return t;
}

bool is_set(const std::vector<std::string>& sets, const std::string& key) {
  return std::any_of(sets.begin(), sets.end(), [&](const std::string& set) {
    const size_t eq = set.find('=');
    const std::string path = set.substr(0, eq);
    if (path == key || path.starts_with(key + ".")) return true;
    if (eq == std::string::npos || !key.starts_with(path + ".")) return false;
    // A section: whether it holds the rest of the key.
    std::istringstream names(key.substr(path.size() + 1));
    YAML::Node at = parse_yaml(set.substr(eq + 1), "--set " + set);
    for (std::string name; std::getline(names, name, '.');) {
      if (!at.IsMap() || !at[name]) return false;
      at.reset(YAML::Node(at[name]));
    }
    return true;
  });
}

void set_path(YAML::Node& config, const std::string& section, const std::string& key,
              const std::string& given) {
  std::string path = given;
  if (const YAML::Node part = config[section];
      path.empty() && part.IsMap() && part[key] && part[key].IsScalar())
    path = part[key].Scalar();
  if (path.empty()) return;  // or none: who reads it says more
  const std::string name = section + "." + key;
  set_key(config, name, YAML::Node(fs::absolute(path).lexically_normal().string()), name);
}

RunConfig read_run_config(const YAML::Node& config, const std::string& where) {
  RunConfig r;
  r.architecture = read_architecture(config, where);
  check_distinct(where + ": model.class_names", r.architecture.class_names);
  r.transform = read_transform(config, where, r.architecture.input_size);
  Section root(config, "", where);
  r.optimizer = read_optimizer(root.section("optimizer"));
  r.schedule = read_schedule(root.section("schedule"));
  r.train = read_train(root.section("train"));
  Section data = root.section("data");
  r.data_path = data.text("path", "");
  r.split.val = data.number("val_fraction", 0.1, 0, 0.9);
  r.split.test = data.number("test_fraction", 0, 0, 0.9);
  r.split.seed = static_cast<uint64_t>(r.train.seed);
  r.folds = static_cast<int>(data.integer("folds", 0, 0, 1000));
  r.fold = static_cast<int>(data.integer("fold", 1, 1, 1000));
  if (r.folds == 1) data.error("folds", "must be 0, for a simple split, or at least 2");
  if (r.fold > std::max(1, r.folds)) data.error("fold", fmt::format("is not one of {} folds", r.folds));
  if (r.folds && r.split.test > 0)
    data.error("test_fraction", "must be 0 with folds: they have no test part");
  r.workers = static_cast<int>(data.integer("workers", 0, 0, 256));
  r.cache_bytes = static_cast<size_t>(data.integer("cache_mib", ImageCache::kDefaultBytes >> 20, 0, 1 << 30))
                  << 20;
  data.finish();
  return r;
}

}  // namespace gm
