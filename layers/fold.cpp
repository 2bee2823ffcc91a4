#include <cmath>
#include <map>

#include "layers/whole_block.h"

namespace gm {

FoldedNetwork::FoldedNetwork(const TrainableGraph& source, const Fusions& fusions, Backend backend)
    : net{Graph(table)} {
  const Graph& g = source.graph;
  Fusions possible = fusions;
  possible.pool = false;  // a folded convolution has no pooled output
  const Matcher match(g, possible);
  const WholeBlocks blocks(g, match);
  Rebuild r(source, table);
  // Kernel and bias that convolution and batch norm of a chain become.
  auto fold = [&](const Chain& c) {
    GM_CHECK(c.drop < 0, "only inference graphs can be folded");
    const Node &n = g.nodes()[c.conv], &norm = g.nodes()[c.norm];
    const Shape channels = g.table()[g.value(norm.in[1]).param].shape;
    const ValueId kernel = r.operand(n.in[1]);
    const ValueId bias = r.graph().parameter(n.name + "/folded_bias", channels, {});
    folds.push_back({g.value(n.in[1]).param, g.value(norm.in[1]).param, g.value(norm.in[2]).param,
                     g.value(norm.state[0]).param, g.value(norm.state[1]).param, norm.attrs.get("eps"),
                     r.graph().value(kernel).param, r.graph().value(bias).param});
    return std::pair(kernel, bias);
  };
  auto whole = [&](const Node& first, const WholeBlock& b) {
    std::vector<ValueId> in{r.operand(blocks.input(b))};
    for (const Chain* c : {&b.expand, &b.depthwise, &b.project}) {
      const auto [kernel, bias] = *c ? fold(*c) : std::pair(kAbsent, kAbsent);
      in.insert(in.end(), {kernel, bias});
    }
    r.append(in, b.se.layers(g));
    return r.graph().add1("mbconv", blocks.attrs(b), in, first.name);
  };
  r.operand(source.pixels);
  std::vector<char> done(g.nodes().size(), 0);
  std::map<ValueId, ValueId> gates;  // of values of g that are still to be scaled
  for (size_t i = 0; i < g.nodes().size(); ++i) {
    if (done[i]) continue;
    const Node& n = g.nodes()[i];
    if (const int pool = match.pool_of_scale(static_cast<int>(i)); pool >= 0) {
      r.fuse_scale_pool(n, g.nodes()[pool]);
      done[pool] = 1;
      continue;
    }
    if (fusions.block && backend != Backend::cpu)
      if (const auto b = blocks.from(static_cast<int>(i)); b && blocks.pays(*b, fusions.every_block)) {
        r.bind(g.nodes()[b->project.last()].out[0], whole(n, *b));
        for (int k : b->nodes()) done[k] = 1;
        continue;
      }
    const Chain c = match.from(static_cast<int>(i));
    if (c.conv < 0) {
      r.copy(n);
      continue;
    }
    const auto [kernel, bias] = fold(c);
    Attrs attrs = n.attrs;
    attrs.set("act", match.act_of(c));
    std::vector<ValueId> in{r.operand(n.in[0]), kernel, bias};
    if (fusions.gate && backend != Backend::cpu && match.is(c.conv, "depthwise_conv2d"))
      if (const SqueezeExcite se = squeeze_excite_behind(g, match, c.last(), match.act_of(c))) {
        r.append(in, se.layers(g));
        const ValueId scaled = g.nodes()[se.scale].out[0];
        const int next = match.only_consumer(se.scale);
        if (pointwise_conv2d(g, next) && match.from(next)) {
          const auto out = r.graph().add("depthwise_se", attrs.set("apart", 1), in, n.name);
          r.bind(scaled, out[0]);
          gates[scaled] = out[1];
        } else {
          r.bind(scaled, r.graph().add1("depthwise_se", attrs, in, n.name));
        }
        for (const auto& nodes : {c.nodes(), se.nodes()})
          for (int k : nodes) done[k] = 1;
        continue;
      }
    if (c.add >= 0) in.push_back(r.operand(c.residual));
    std::string op(n.op->name);
    if (const auto gate = gates.find(n.in[0]); gate != gates.end()) {
      op = "channel_scale_conv2d";
      in.insert(in.begin() + 1, gate->second);
    }
    const ValueId out = r.graph().add1(op, attrs, in, n.name);
    r.bind(g.nodes()[c.last()].out[0], out);
    for (int k : c.nodes()) done[k] = 1;
  }
  net = r.finish();
  std::vector<char> folded(table.size(), 0);
  for (const Fold& f : folds) folded[f.folded_kernel] = folded[f.folded_bias] = 1;
  for (int i = 0; i < table.size(); ++i)
    if (!folded[i]) copies.emplace_back(g.table().find(table[i].name), i);
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
  to.refresh_half();
}

}  // namespace gm
