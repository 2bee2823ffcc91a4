#include "layers/search_space.h"

#include <algorithm>
#include <set>
#include <sstream>

#include "layers/count.h"

namespace gm {

namespace {
const char* choice_name(ChoiceKind kind) {
  constexpr const char* kNames[kChoiceKinds]{"kernel", "expand", "width", "layers", "se", "residual"};
  return kNames[static_cast<int>(kind)];
}
}  // namespace

SpaceOptions read_space_options(Section s) {
  SpaceOptions o;
  auto numbers = [&](const char* key, auto& values, double lo, double hi) {
    using T = typename std::decay_t<decltype(values)>::value_type;
    const std::vector<double> read = s.numbers(key, {values.begin(), values.end()}, 0);
    if (read.empty()) s.error(key, "the space is empty: give at least one option");
    if (std::set<double>(read.begin(), read.end()).size() != read.size())
      s.error(key, "an option stands there twice");
    values.clear();
    for (double v : read) {
      if (v < lo || v > hi || v != static_cast<double>(static_cast<T>(v)))
        s.error(key, "options must be " + std::string(std::is_integral_v<T> ? "whole numbers" : "numbers") +
                         " in [" + YAML::Dump(YAML::Node(lo)) + ", " + YAML::Dump(YAML::Node(hi)) + "]");
      values.push_back(static_cast<T>(v));
    }
  };
  numbers("kernel", o.kernel, 1, 11);
  for (int k : o.kernel)
    if (k % 2 == 0) s.error("kernel", "must be odd");
  numbers("expand", o.expand, 1, 64);
  numbers("width", o.width, 0.1, 8);
  numbers("layers", o.layers, 1, 100);
  numbers("se", o.se, 0, 1);
  if (s.has("residual")) {
    o.residual.clear();
    for (const std::string& text : s.texts("residual")) {
      if (text != "true" && text != "false") s.error("residual", "must be a list of true and false");
      o.residual.push_back(text == "true");
    }
    if (o.residual.empty()) s.error("residual", "the space is empty: give at least one option");
    if (o.residual.size() > 2 || (o.residual.size() == 2 && o.residual[0] == o.residual[1]))
      s.error("residual", "an option stands there twice");
  }
  s.finish();
  return o;
}

SearchSpace::SearchSpace(Architecture base, SpaceOptions options)
    : base_(std::move(base)), options_(std::move(options)) {
  for (size_t i = 0; i < base_.stages.size(); ++i)
    if (base_.stages[i].block != BlockType::mbconv)
      fail("search: stage " + std::to_string(i + 1) + " of the base network is " +
           block_name(base_.stages[i].block) + "; the space has mbconv stages only");
}

int SearchSpace::options(ChoiceKind kind) const {
  const size_t counts[kChoiceKinds]{options_.kernel.size(), options_.expand.size(), options_.width.size(),
                                    options_.layers.size(), options_.se.size(),     options_.residual.size()};
  return static_cast<int>(counts[static_cast<int>(kind)]);
}

double SearchSpace::size() const {
  double n = 1;
  for (int i = 0; i < length(); ++i) n *= options_at(i);
  return n;
}

StageSpec SearchSpace::stage(int index, const int* c) const {
  StageSpec s = base_.stages[index];
  s.kernel = options_.kernel[c[0]];
  s.expand = options_.expand[c[1]];
  s.filters = round_filters(s.filters * options_.width[c[2]], false);
  s.layers = options_.layers[c[3]];
  s.se = options_.se[c[4]];
  s.residual = options_.residual[c[5]] != 0;
  return s;
}

Architecture SearchSpace::network(const ChoiceVector& choices) const {
  if (static_cast<int>(choices.size()) != length())
    fail("search: " + std::to_string(choices.size()) + " choices, the space has " + std::to_string(length()) +
         " (" + std::to_string(kChoiceKinds) + " for each of " + std::to_string(stages()) + " stages)");
  for (int i = 0; i < length(); ++i)
    if (choices[i] < 0 || choices[i] >= options_at(i))
      fail("search: choice " + std::to_string(i + 1) + " (" + choice_name(kind(i)) + " of stage " +
           std::to_string(i / kChoiceKinds + 1) + ") is " + std::to_string(choices[i]) +
           "; there are options 0 to " + std::to_string(options_at(i) - 1));
  Architecture a = base_;
  for (int i = 0; i < stages(); ++i) a.stages[i] = stage(i, choices.data() + i * kChoiceKinds);
  return a;
}

Architecture SearchSpace::extreme(bool largest) const {
  Architecture a = base_;
  auto most = [largest](const auto& values) {
    return largest ? *std::max_element(values.begin(), values.end())
                   : *std::min_element(values.begin(), values.end());
  };
  for (StageSpec& s : a.stages) {
    s.kernel = most(options_.kernel);
    s.expand = most(options_.expand);
    s.filters = round_filters(s.filters * most(options_.width), false);
    s.layers = most(options_.layers);
    s.se = most(options_.se);
    s.residual = most(options_.residual) != 0;
  }
  return a;
}

std::optional<ChoiceVector> SearchSpace::choices_of(const Architecture& a) const {
  if (a.stages.size() != base_.stages.size() || a.stem_filters != base_.stem_filters ||
      a.stem_kernel != base_.stem_kernel || a.stem_stride != base_.stem_stride ||
      a.head_filters != base_.head_filters)
    return std::nullopt;
  ChoiceVector all;
  for (int i = 0; i < stages(); ++i) {
    std::vector<int> c(kChoiceKinds, 0);
    for (;;) {  // all combinations of one stage: a few hundred
      if (stage(i, c.data()) == a.stages[i]) break;
      int k = kChoiceKinds - 1;
      while (k >= 0 && ++c[k] == options(static_cast<ChoiceKind>(k))) c[k--] = 0;
      if (k < 0) return std::nullopt;
    }
    all.insert(all.end(), c.begin(), c.end());
  }
  return all;
}

std::string SearchSpace::text(const Architecture& a) {
  std::ostringstream t;
  for (size_t i = 0; i < a.stages.size(); ++i) {
    const StageSpec& s = a.stages[i];
    t << (i ? ", " : "") << 'k' << s.kernel << " e" << s.expand << " w" << s.filters << " n" << s.layers;
    if (s.se > 0) t << " se" << s.se;
    if (!s.residual) t << " plain";
  }
  return t.str();
}

bool SearchSpace::allows(const ChoiceVector& choices) const {
  return !limited() || network_size(network(choices)).macs <= options_.max_macs;
}

ChoiceVector SearchSpace::first_allowed(const std::function<ChoiceVector()>& draw) const {
  for (int i = 0; i < 10000; ++i) {
    const ChoiceVector choices = draw();
    if (allows(choices)) return choices;
  }
  fail("search.max_macs " + std::to_string(options_.max_macs) +
       ": none of 10000 proposed networks is within it; raise it or leave the expensive choices out of "
       "search.space");
}

NetworkSize network_size(const Architecture& a) {
  const NetworkCount count = count_network(a);
  return {count.params_trainable, count.macs};
}

}  // namespace gm
