#include "layers/count.h"

#include <set>

namespace gm {

NetworkCount count_network(const Graph& g) {
  NetworkCount total;
  std::set<ValueId> counted;  // weights shared by several nodes belong to the first
  for (const Node& n : g.nodes()) {
    LayerCount l;
    l.name = n.name;
    l.op = n.op->name;
    const Shape& out = g.spec(n.out[0]).shape;
    for (int i = 1; i < out.rank; ++i) l.output.dims[l.output.rank++] = out[i];
    for (const auto* ids : {&n.in, &n.state})
      for (ValueId id : *ids)
        if (id != kAbsent && g.value(id).kind == Value::parameter && counted.insert(id).second)
          l.params += g.spec(id).shape.numel();
    if (l.op == "conv2d" || l.op == "depthwise_conv2d" || l.op == "linear") {
      // Weights (out, ..., in) or, depthwise, (k, k, channels): products behind one output element.
      const Shape& w = g.spec(n.in[1]).shape;
      const int64_t per_output = w.numel() / (l.op == "depthwise_conv2d" ? w.channels() : w[0]);
      l.macs = out.numel() / out[0] * per_output;
      l.flops_eq13 = out.numel() / out[0] * (2 * per_output - 1);
    }
    total.macs += l.macs;
    total.flops_eq13 += l.flops_eq13;
    total.layers.push_back(l);
  }
  total.params_total = g.table().total_count();
  total.params_trainable = g.table().trainable_count();
  return total;
}

}  // namespace gm
