#include "layers/rewrites.h"

#include "layers/squeeze_excite.h"

namespace gm {

NetworkGraph fuse_for_training(const NetworkGraph& source, const Fusions& fusions, Backend backend) {
  const Graph& g = source.graph;
  const Matcher match(g, fusions);
  Rebuild r(source, g.table());
  r.operand(source.pixels);
  std::vector<char> done(g.nodes().size(), 0);
  for (size_t i = 0; i < g.nodes().size(); ++i) {
    if (done[i]) continue;
    const Node& n = g.nodes()[i];
    r.graph().begin_segment(n.segment);
    if (const int pool = match.pool_of_scale(static_cast<int>(i)); pool >= 0) {
      r.fuse_scale_pool(n, g.nodes()[pool]);
      done[pool] = 1;
      continue;
    }
    const Chain c = match.from(static_cast<int>(i));
    if (c.nodes().size() < 2) {
      r.copy(n);
      continue;
    }
    const Node& norm = g.nodes()[c.norm];
    Attrs attrs = c.conv >= 0 ? g.nodes()[c.conv].attrs : Attrs{};
    for (const char* key : {"eps", "momentum", "training", "unbiased"}) attrs.set(key, norm.attrs.get(key));
    SqueezeExcite se;
    if (fusions.gate && backend != Backend::cpu && c.pool >= 0 && match.is(c.conv, "depthwise_conv2d"))
      se = squeeze_excite_behind(g, match, c.last(), match.act_of(c));
    attrs.set("act", match.act_of(c)).set("pool", c.pool >= 0 && !se);
    if (c.drop >= 0)
      for (const char* key : {"rate", "stream"}) attrs.set(key, g.nodes()[c.drop].attrs.get(key));
    std::vector<ValueId> in;
    if (c.conv >= 0)
      in = {r.operand(n.in[0]), r.operand(n.in[1])};
    else
      in = {r.operand(norm.in[0])};
    in.push_back(r.operand(norm.in[1]));
    in.push_back(r.operand(norm.in[2]));
    if (c.add >= 0) in.push_back(r.operand(c.residual));
    if (se) {
      r.append(in, se.layers(g));
      r.bind(g.nodes()[se.scale].out[0],
             r.graph().add1("depthwise_bn_se", attrs, in, n.name, r.operands(norm.state)));
      for (const auto& nodes : {c.nodes(), se.nodes()})
        for (int k : nodes) done[k] = 1;
      continue;
    }
    const char* op = c.conv < 0               ? "batch_norm_act"
                     : n.op->name == "conv2d" ? "conv_bn_act"
                                              : "depthwise_bn_act";
    const auto out = r.graph().add(op, attrs, in, n.name, r.operands(norm.state));
    r.bind(g.nodes()[c.last()].out[0], out[0]);
    if (c.pool >= 0) r.bind(g.nodes()[c.pool].out[0], out[1]);
    for (int k : c.nodes()) done[k] = 1;
  }
  return r.finish();
}

}  // namespace gm
