#include "layers/network.h"

#include <algorithm>
#include <set>

#include "kernels/common/error.h"
#include "kernels/global_pool/global_pool.h"

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

/// One network, part by part. Segments of the graph: the stem, each block, the top.
class NetworkBuilder {
 public:
  NetworkBuilder(const Architecture& a, ParameterTable& table, const BuildOptions& o)
      : a_(a), table_(table), o_(o), t_{Graph(table)}, g_(t_.graph), blocks_(g_, a, o.training, o.freeze) {}
  NetworkBuilder(const NetworkBuilder&) = delete;
  NetworkBuilder& operator=(const NetworkBuilder&) = delete;

  NetworkGraph build() {
    g_.begin_segment(segment_++);
    ValueId x = blocks_.activation(
        blocks_.batch_norm(
            blocks_.conv(input(), "stem_conv", a_.stem_filters, a_.stem_kernel, a_.stem_stride), "stem_bn"),
        a_.act, "stem_activation");
    x = stages(x);
    g_.begin_segment(segment_);
    t_.logits = top(x);
    if (o_.training) freeze_parameters(table_, o_.freeze);
    if (o_.loss) loss();
    return std::move(t_);
  }

 private:
  /// The scaled image; in training with mixup or CutMix what the op `mix` makes of it and its labels.
  ValueId input() {
    const int64_t size = o_.input_size ? o_.input_size : a_.input_size;
    t_.pixels = g_.input("pixels", {Shape{o_.batch, size, size, 3}, o_.augmented ? o_.dtype : DType::f32});
    Attrs scaling{{"bf16", o_.dtype == DType::bf16}};
    for (int c = 0; c < 3; ++c)
      scaling.set("mean" + std::to_string(c), a_.mean[c]).set("std" + std::to_string(c), a_.std[c]);
    ValueId x = t_.pixels;
    if (o_.augmented)
      t_.augment = scaling.set("size", size);
    else
      x = g_.add1("normalize", scaling, {t_.pixels}, "rescaling");
    if (!o_.training || !o_.loss) return x;
    targets_ = labels();
    if (o_.mixup <= 0 && o_.cutmix <= 0) return x;
    const Attrs mix{{"mixup", o_.mixup}, {"cutmix", o_.cutmix}, {"classes", a_.classes}};
    const auto mixed = g_.add("mix", mix, {x, t_.labels}, "mix");
    targets_ = mixed[1];
    return mixed[0];
  }

  ValueId labels() {
    const TensorSpec hard{Shape{o_.batch}, DType::i32}, soft{Shape{o_.batch, a_.classes}, DType::f32};
    return t_.labels = g_.input("labels", o_.soft_labels ? soft : hard);
  }

  ValueId stages(ValueId x) {
    int blocks = 0, at = 0;
    for (const StageSpec& s : a_.stages) blocks += s.layers;
    for (size_t i = 0; i < a_.stages.size(); ++i) {
      const StageSpec& s = a_.stages[i];
      for (int layer = 0; layer < s.layers; ++layer, ++at) {
        const std::string prefix = "block" + std::to_string(i + 1) + letters(layer) + "_";
        const int stride = layer == 0 ? s.stride : 1;
        const double drop = a_.stochastic_depth * at / blocks;  // deeper blocks drop more often
        g_.begin_segment(segment_++);
        switch (s.block) {
          case BlockType::mbconv:
            x = blocks_.mbconv(x, prefix, s, stride, drop);
            break;
          case BlockType::fused_mbconv:
            x = blocks_.fused_mbconv(x, prefix, s, stride, drop);
            break;
        }
      }
    }
    return x;
  }
  /// a..z, then aa..: stages deeper than 26 blocks exist in the larger networks.
  static std::string letters(int layer) {
    std::string s;
    for (int n = layer; n >= 0; n = n / 26 - 1) s.insert(s.begin(), static_cast<char>('a' + n % 26));
    return s;
  }

  /// From the last stage to the logits.
  ValueId top(ValueId x) {
    if (a_.head_filters) {
      x = blocks_.batch_norm(blocks_.conv(x, "top_conv", a_.head_filters, 1, 1), "top_bn");
      x = blocks_.activation(x, a_.act, "top_activation");
    }
    x = blocks_.attention(x, a_.attention);
    x = g_.add1("global_pool", {{"kind", PoolKind::average}}, {x}, "avg_pool");
    x = blocks_.dropout(x, a_.dropout, false, "top_dropout", o_.sampling);
    if (a_.hidden.units) {
      // Keras's default for a Dense layer, glorot_uniform: variance 2 / (in + out).
      const double fan = double(g_.spec(x).shape.channels() + a_.hidden.units) / 2;
      x = blocks_.dense(x, "hidden", a_.hidden.units, {Initializer::uniform, fan, 1.0});
      x = blocks_.activation(x, a_.hidden.act, "hidden_activation");
      x = blocks_.dropout(x, a_.hidden.dropout, false, "hidden_dropout", o_.sampling);
    }
    return blocks_.dense(x, "predictions", a_.classes);
  }

  void loss() {
    if (targets_ == kAbsent) targets_ = labels();
    if (o_.training && o_.class_weights)
      t_.class_weights = g_.input("class_weights", {Shape{a_.classes}, DType::f32});
    const auto out = g_.add("softmax_xent", {{"smoothing", o_.training ? o_.label_smoothing : 0}},
                            {t_.logits, targets_, t_.class_weights}, "loss");
    t_.loss = out[0];
    t_.correct = out[1];
    if (a_.hidden.units && a_.hidden.l2 > 0) {
      const Node& hidden = g_.nodes()[g_.value(g_.output_of("hidden")).producer];
      t_.loss = g_.add1("l2_penalty", {{"factor", a_.hidden.l2}}, {t_.loss, hidden.in[1]}, "hidden_l2");
    }
    if (o_.training && !o_.l2.empty()) t_.loss = add_penalties(g_, t_.loss, o_.l2);
  }

  const Architecture& a_;
  ParameterTable& table_;
  const BuildOptions& o_;
  NetworkGraph t_;
  Graph& g_;
  Blocks blocks_;
  int segment_ = 0;
  ValueId targets_ = kAbsent;  // of the loss
};

}  // namespace

NetworkGraph build_network(const Architecture& a, ParameterTable& table, const BuildOptions& o) {
  return NetworkBuilder(a, table, o).build();
}

}  // namespace gm
