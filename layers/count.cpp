#include "layers/count.h"

#include <set>

#include "kernels/common/ceil_div.h"
#include "layers/network.h"

namespace gm {

std::vector<StageRow> stage_rows(const Architecture& a) {
  auto kernel = [](int k) { return std::to_string(k) + "x" + std::to_string(k); };
  std::vector<StageRow> rows;
  int side = a.input_size, channels = a.stem_filters;
  auto add = [&](const std::string& op, int filters, int layers, int stride) {
    rows.push_back({op, side, filters, layers});
    side = ceil_div(side, stride);
  };
  add("Conv " + kernel(a.stem_kernel), channels, 1, a.stem_stride);
  for (const StageSpec& s : a.stages) {
    const std::string name = s.block == BlockType::mbconv ? "MBConv" : "Fused-MBConv";
    add(name + std::to_string(s.expand) + ", k" + kernel(s.kernel), s.filters, s.layers, s.stride);
    channels = s.filters;
  }
  if (a.head_filters) channels = a.head_filters;
  std::string head = a.head_filters ? "Conv 1x1 & " : "";
  if (a.attention.type != AttentionType::none) head += attention_name(a.attention.type) + " & ";
  add(head + "Pooling & FC", channels, 1, 1);
  return rows;
}

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

NetworkCount count_network(const Architecture& a) {
  ParameterTable table;
  return count_network(build_network(a, table, {.batch = 1, .loss = false}).graph);
}

}  // namespace gm
