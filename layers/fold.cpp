#include <cmath>
#include <map>

#include "layers/whole_block.h"

namespace gm {

namespace {

/// One pass over the nodes of a graph; each is copied, or becomes with those behind it one node.
class Folding {
 public:
  Folding(const NetworkGraph& source, ParameterTable& table, const Fusions& fusions, Backend backend)
      : g_(source.graph),
        fusions_(fusions),
        card_(backend != Backend::cpu),
        match_(g_, without_pool(fusions)),
        blocks_(g_, match_),
        r_(source, table),
        done_(g_.nodes().size(), 0) {
    r_.operand(source.pixels);
    for (size_t i = 0; i < g_.nodes().size(); ++i)
      if (!done_[i]) node(static_cast<int>(i));
  }
  NetworkGraph finish() { return r_.finish(); }

  std::vector<Fold> folds;

 private:
  static Fusions without_pool(Fusions f) {
    f.pool = false;  // a folded convolution has no pooled output
    return f;
  }
  const Node& at(int node) const { return g_.nodes()[node]; }
  void finished(const std::vector<int>& nodes) {
    for (int k : nodes) done_[k] = 1;
  }

  void node(int i) {
    if (const int pool = match_.pool_of_scale(i); pool >= 0) {
      r_.fuse_scale_pool(at(i), at(pool));
      return finished({pool});
    }
    if (card_ && fusions_.block && whole_block(i)) return;
    const Chain c = match_.from(i);
    if (c.conv < 0) return r_.copy(at(i));
    if (card_ && fusions_.gate && depthwise_se(c)) return;
    convolution(c);
  }

  /// Kernel and bias that convolution and batch norm of a chain become.
  std::pair<ValueId, ValueId> fold(const Chain& c) {
    GM_CHECK(c.drop < 0, "only inference graphs can be folded");
    const Node &n = at(c.conv), &norm = at(c.norm);
    auto parameter = [&](ValueId id) { return g_.value(id).param; };
    const Shape channels = g_.table()[parameter(norm.in[1])].shape;
    const ValueId kernel = r_.operand(n.in[1]);
    const ValueId bias = r_.graph().parameter(n.name + "/folded_bias", channels, {});
    folds.push_back({parameter(n.in[1]), parameter(norm.in[1]), parameter(norm.in[2]),
                     parameter(norm.state[0]), parameter(norm.state[1]), norm.attrs.get("eps"),
                     r_.graph().value(kernel).param, r_.graph().value(bias).param});
    return {kernel, bias};
  }
  void append_folded(std::vector<ValueId>& in, const Chain& c) {
    const auto [kernel, bias] = c ? fold(c) : std::pair(kAbsent, kAbsent);
    in.insert(in.end(), {kernel, bias});
  }

  /// An MBConv or Fused-MBConv block that begins with this node, as one.
  bool whole_block(int i) {
    if (const auto b = blocks_.mbconv_from(i); b && blocks_.pays(*b, fusions_.every_block)) {
      std::vector<ValueId> in{r_.operand(blocks_.input(*b))};
      for (const Chain* c : {&b->expand, &b->depthwise, &b->project}) append_folded(in, *c);
      r_.append(in, b->se.layers(g_));
      replace(i, "mbconv", blocks_.attrs(*b), in, b->project, b->nodes());
      return true;
    }
    if (const auto b = blocks_.fused_mbconv_from(i)) {
      std::vector<ValueId> in{r_.operand(blocks_.input(*b))};
      for (const Chain* c : {&b->expand, &b->project}) append_folded(in, *c);
      replace(i, "fused_mbconv", blocks_.attrs(*b), in, b->project, b->nodes());
      return true;
    }
    return false;
  }
  void replace(int i, const char* op, const Attrs& attrs, const std::vector<ValueId>& in,
               const Chain& project, const std::vector<int>& nodes) {
    r_.bind(at(project.last()).out[0], r_.graph().add1(op, attrs, in, at(i).name));
    finished(nodes);
  }

  Attrs attrs_of(const Chain& c) const { return Attrs(at(c.conv).attrs).set("act", match_.act_of(c)); }

  /// A depthwise convolution with the squeeze-and-excitation behind it. The gate is left to a projection that
  /// can apply it.
  bool depthwise_se(const Chain& c) {
    if (!match_.is(c.conv, "depthwise_conv2d")) return false;
    const SqueezeExcite se = squeeze_excite_behind(g_, match_, c.last(), match_.act_of(c));
    if (!se) return false;
    std::vector<ValueId> in{r_.operand(at(c.conv).in[0])};
    append_folded(in, c);
    r_.append(in, se.layers(g_));
    const int next = match_.only_consumer(se.scale);
    const bool apart = pointwise_conv2d(g_, next) && match_.from(next);
    Attrs attrs = attrs_of(c);
    if (apart) attrs.set("apart", 1);
    const auto out = r_.graph().add("depthwise_se", attrs, in, at(c.conv).name);
    const ValueId scaled = at(se.scale).out[0];
    r_.bind(scaled, out[0]);
    if (apart) gates_[scaled] = out[1];
    finished(c.nodes());
    finished(se.nodes());
    return true;
  }

  void convolution(const Chain& c) {
    const Node& n = at(c.conv);
    std::string op(n.op->name);
    std::vector<ValueId> in{r_.operand(n.in[0])};
    if (const auto gate = gates_.find(n.in[0]); gate != gates_.end()) {
      op = "channel_scale_conv2d";
      in.push_back(gate->second);
    }
    append_folded(in, c);
    if (c.add >= 0) in.push_back(r_.operand(c.residual));
    r_.bind(at(c.last()).out[0], r_.graph().add1(op, attrs_of(c), in, n.name));
    finished(c.nodes());
  }

  const Graph& g_;
  const Fusions& fusions_;
  const bool card_;
  const Matcher match_;
  const WholeBlocks blocks_;
  Rebuild r_;
  std::vector<char> done_;
  std::map<ValueId, ValueId> gates_;  // of values of g that are still to be scaled
};

}  // namespace

FoldedNetwork::FoldedNetwork(const NetworkGraph& source, const Fusions& fusions, Backend backend)
    : net{Graph(table)} {
  Folding folding(source, table, fusions, backend);
  net = folding.finish();
  folds = std::move(folding.folds);
  std::vector<char> folded(table.size(), 0);
  for (const Fold& f : folds) folded[f.folded_kernel] = folded[f.folded_bias] = 1;
  for (int i = 0; i < table.size(); ++i)
    if (!folded[i]) copies.emplace_back(source.graph.table().find(table[i].name), i);
}

void FoldedNetwork::refresh(const ParameterTable& original, const Weights& from, Weights& to) const {
  for (auto [source, target] : copies) to.upload(table[target], from.download(original[source]));
  for (const Fold& f : folds) {
    const auto gamma = from.download(original[f.gamma]), beta = from.download(original[f.beta]);
    const auto mean = from.download(original[f.mean]), variance = from.download(original[f.variance]);
    auto kernel = from.download(original[f.kernel]);
    const size_t channels = gamma.size();
    // OHWI has the filter first, depthwise HWC the channel last.
    const bool depthwise = original[f.kernel].shape.rank == 3;
    const size_t per_filter = kernel.size() / channels;
    std::vector<float> bias(channels);
    for (size_t c = 0; c < channels; ++c) {
      const double scale = gamma[c] / std::sqrt(static_cast<double>(variance[c]) + f.epsilon);
      bias[c] = static_cast<float>(beta[c] - mean[c] * scale);
      for (size_t k = 0; k < per_filter; ++k) {
        float& w = depthwise ? kernel[k * channels + c] : kernel[c * per_filter + k];
        w = static_cast<float>(w * scale);
      }
    }
    to.upload(table[f.folded_kernel], kernel);
    to.upload(table[f.folded_bias], bias);
  }
  to.refresh_bf16();
}

}  // namespace gm
