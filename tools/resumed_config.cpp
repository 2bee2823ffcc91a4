#include "tools/resumed_config.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "data/csv.h"

namespace gm {

namespace {

bool begins(const std::string& key, const std::vector<std::string>& prefixes) {
  return std::any_of(prefixes.begin(), prefixes.end(), [&](const auto& p) { return key.starts_with(p); });
}

/// Of where and how fast images are read.
bool of_place(const std::string& key) {
  return begins(key, {"data.path", "data.workers", "data.cache_mib", "train.init"});
}

bool may_change(const std::string& key, MayChange may) {
  if (of_place(key)) return true;
  // The weights' shape and meaning, which images are whose, and where in an epoch a checkpoint stands.
  return may == MayChange::recipe && !begins(key, {"model.", "input.", "augment.", "data.", "train.batch",
                                                   "train.seed", "optimizer.name", "optimizer.accumulate"});
}

/// What --init took from the file of weights, whatever the configuration says.
bool adopted(const YAML::Node& begun, const std::string& key) {
  return begun["train"] && begun["train"]["init"] &&
         begins(key, {"model.padding", "model.batch_norm.epsilon", "input.scaling."});
}

using Keys = std::map<std::string, YAML::Node>;

/// By dotted path; lists are one value.
void flatten(const YAML::Node& node, const std::string& path, Keys& keys) {
  if (!node.IsMap()) {
    keys.emplace(path, node);
    return;
  }
  for (const auto& item : node) {
    const std::string key = item.first.Scalar();
    flatten(item.second, path.empty() ? key : path + "." + key, keys);
  }
}

std::string text_of(const YAML::Node& value) {
  if (value.IsScalar()) return value.Scalar();
  YAML::Emitter text;
  text << YAML::Flow << value;
  return text.c_str();
}

/// What a key that the command line has an option for is where a configuration does not set it.
std::string unset(const RunConfig& run, const std::string& key) {
  if (key == "train.seed") return std::to_string(run.train.seed);
  if (key == "train.batch") return std::to_string(run.train.batch);
  if (key == "train.epochs") return std::to_string(run.train.epochs);
  return "not set";
}

bool same(const std::string& a, const std::string& b) {
  double x = 0, y = 0;
  return a == b || (parse_double(a, x) && parse_double(b, y) && x == y);
}

}  // namespace

std::vector<std::string> take_up_config(TrainJob& job, const std::string& file, MayChange may) {
  const YAML::Node begun = load_config(file, {});
  const RunConfig begun_run = read_run_config(begun, file);
  Keys before, now;
  flatten(begun, "", before);
  flatten(job.yaml, "", now);
  std::vector<std::string> changes;
  for (const auto& [key, value] : now) {
    const auto old = before.find(key);
    const std::string was = old == before.end() ? unset(begun_run, key) : text_of(old->second),
                      is = text_of(value);
    if (same(was, is) || (adopted(begun, key) && !is_set(job.sets, key))) continue;
    if (!may_change(key, may))
      fail(fmt::format(
          "{}: {} is {} there and {} here; resume the run with its own settings, or begin another", file, key,
          was, is));
    set_key(begun, key, value, file);
    job.learns_otherwise |= !of_place(key) && key != "train.restore_best";
    changes.push_back(fmt::format("changed: {} from {} to {}", key, was, is));
  }
  job.yaml = begun;
  job.run = read_run_config(job.yaml, file);
  return changes;
}

}  // namespace gm
