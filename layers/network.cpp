#include "layers/network.h"

#include <algorithm>
#include <set>

#include "kernels/common/error.h"

namespace gm {

namespace {

// Before anything is planned: frozen parameters get no gradient.
void freeze_parameters(ParameterTable& table, const FreezeSpec& freeze) {
  for (const std::string& prefix : freeze.layers)
    if (std::none_of(table.begin(), table.end(),
                     [&](const Parameter& p) { return layer_matches(prefix, p.name); }))
      fail("train.freeze: no layer's name starts with '" + prefix + "'");
  for (int i = 0; i < table.size(); ++i) {
    Parameter& p = table[i];
    const bool norm = p.name.ends_with("/gamma") || p.name.ends_with("/beta");
    p.frozen = p.trainable && (freeze.holds(p.name) || (freeze.batch_norm && norm));
  }
  if (std::none_of(table.begin(), table.end(), [](const Parameter& p) { return p.trainable && !p.frozen; }))
    fail("train.freeze leaves nothing to train");
}

// The loss and the penalties that BuildOptions::l2 asks for.
ValueId add_penalties(Graph& g, ValueId loss, const std::map<std::string, double>& l2) {
  std::set<std::string> used;
  std::set<int> seen;                       // a layer that stands twice in the network has one kernel
  const size_t values = g.values().size();  // those of the network
  for (size_t i = 0; i < values; ++i) {
    const auto id = static_cast<ValueId>(i);
    if (g.value(id).kind != Value::parameter || !seen.insert(g.value(id).param).second) continue;
    const Parameter& p = g.table()[g.value(id).param];
    const auto longest = std::max_element(l2.begin(), l2.end(), [&](const auto& a, const auto& b) {
      const auto length = [&](const std::string& key) { return layer_matches(key, p.name) ? key.size() : 0; };
      return length(a.first) < length(b.first);
    });
    if (!p.decay || p.frozen || !layer_matches(longest->first, p.name)) continue;
    used.insert(longest->first);
    const std::string layer = p.name.substr(0, p.name.rfind('/'));
    if (longest->second > 0)
      loss = g.add1("l2_penalty", {{"factor", longest->second}}, {loss, id}, layer + "_l2");
  }
  for (const auto& [key, factor] : l2)
    if (!used.count(key)) fail("train.l2: no trained kernel of a layer whose name starts with '" + key + "'");
  return loss;
}

}  // namespace

TrainableGraph build_network(const Architecture& a, ParameterTable& table, const BuildOptions& o) {
  TrainableGraph t{Graph(table)};
  Graph& g = t.graph;
  Blocks b(g, a, o.training, o.freeze);
  const int64_t size = o.input_size ? o.input_size : a.input_size;

  // Segments: the stem, each block, the top.
  int segment = 0;
  g.begin_segment(segment++);
  t.pixels = g.input("pixels", {Shape{o.batch, size, size, 3}, o.augmented ? o.dtype : DType::f32});
  Attrs scaling{{"bf16", o.dtype == DType::bf16}};
  for (int c = 0; c < 3; ++c)
    scaling.set("mean" + std::to_string(c), a.mean[c]).set("std" + std::to_string(c), a.std[c]);
  ValueId x = t.pixels;
  if (o.augmented)
    t.augment = scaling.set("size", static_cast<double>(size));
  else
    x = g.add1("normalize", scaling, {t.pixels}, "rescaling");
  ValueId targets = kAbsent;
  if (o.training && o.loss) {
    targets = t.labels = g.input("labels", {Shape{o.batch}, DType::i32});
    if (o.mixup > 0 || o.cutmix > 0) {
      const Attrs mix{{"mixup", o.mixup}, {"cutmix", o.cutmix}, {"classes", static_cast<double>(a.classes)}};
      const auto mixed = g.add("mix", mix, {x, t.labels}, "mix");
      x = mixed[0];
      targets = mixed[1];
    }
  }

  x = b.batch_norm(b.conv(x, "stem_conv", a.stem_filters, a.stem_kernel, a.stem_stride), "stem_bn");
  x = b.activation(x, a.act, "stem_activation");

  int blocks = 0, at = 0;
  for (const StageSpec& s : a.stages) blocks += s.layers;
  for (size_t i = 0; i < a.stages.size(); ++i) {
    const StageSpec& s = a.stages[i];
    for (int layer = 0; layer < s.layers; ++layer, ++at) {
      std::string letter;  // a..z, then aa..: stages deeper than 26 blocks exist in the larger networks
      for (int n = layer; n >= 0; n = n / 26 - 1)
        letter.insert(letter.begin(), static_cast<char>('a' + n % 26));
      const std::string prefix = "block" + std::to_string(i + 1) + letter + "_";
      const int stride = layer == 0 ? s.stride : 1;
      const double drop = a.stochastic_depth * at / blocks;  // deeper blocks drop more often
      g.begin_segment(segment++);
      switch (s.block) {
        case BlockType::mbconv:
          x = b.mbconv(x, prefix, s, stride, drop);
          break;
        case BlockType::fused_mbconv:
          x = b.fused_mbconv(x, prefix, s, stride, drop);
          break;
      }
    }
  }
  g.begin_segment(segment);
  if (a.head_filters) {
    x = b.batch_norm(b.conv(x, "top_conv", a.head_filters, 1, 1), "top_bn");
    x = b.activation(x, a.act, "top_activation");
  }
  x = b.attention(x, a.attention);
  x = g.add1("global_pool", {{"kind", 0}}, {x}, "avg_pool");
  x = b.dropout(x, a.dropout, false, "top_dropout", o.sampling);
  if (a.hidden.units) {
    // Keras's default for a Dense layer, glorot_uniform: variance 2 / (in + out).
    const double fan = double(g.spec(x).shape.channels() + a.hidden.units) / 2;
    x = b.dense(x, "hidden", a.hidden.units, {Initializer::uniform, fan, 1.0});
    x = b.activation(x, a.hidden.act, "hidden_activation");
    x = b.dropout(x, a.hidden.dropout, false, "hidden_dropout", o.sampling);
  }
  t.logits = b.dense(x, "predictions", a.classes);
  if (o.training) freeze_parameters(table, o.freeze);
  if (o.loss) {
    if (targets == kAbsent) targets = t.labels = g.input("labels", {Shape{o.batch}, DType::i32});
    if (o.training && o.class_weights)
      t.class_weights = g.input("class_weights", {Shape{a.classes}, DType::f32});
    auto out = g.add("softmax_xent", {{"smoothing", o.training ? o.label_smoothing : 0}},
                     {t.logits, targets, t.class_weights}, "loss");
    t.loss = out[0];
    t.correct = out[1];
    if (a.hidden.units && a.hidden.l2 > 0) {
      const Node& hidden = g.nodes()[g.value(g.output_of("hidden")).producer];
      t.loss = g.add1("l2_penalty", {{"factor", a.hidden.l2}}, {t.loss, hidden.in[1]}, "hidden_l2");
    }
    if (o.training && !o.l2.empty()) t.loss = add_penalties(g, t.loss, o.l2);
  }
  return t;
}

}  // namespace gm
