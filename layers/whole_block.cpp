#include "layers/whole_block.h"

#include "kernels/fused_mbconv/fused_mbconv_tiles.h"
#include "kernels/mbconv/mbconv_gpu.h"

namespace gm {

std::vector<int> MbconvBlock::nodes() const {
  std::vector<int> list = se.nodes();
  for (const Chain* c : {&expand, &depthwise, &project})
    for (int n : c->nodes()) list.push_back(n);
  return list;
}

std::optional<MbconvBlock> WholeBlocks::mbconv_from(int node) const {
  MbconvBlock b;
  int next = node;
  if (pointwise_conv2d(g_, node)) {
    b.expand = match_.from(node);
    if (!b.expand || b.expand.add >= 0) return {};
    next = match_.only_consumer(b.expand.last());
  }
  if (!match_.is(next, "depthwise_conv2d")) return {};
  b.depthwise = match_.from(next);
  if (!b.depthwise || (b.expand && match_.act_of(b.expand) != match_.act_of(b.depthwise))) return {};
  const int last = b.depthwise.last();
  b.se = squeeze_excite_behind(g_, match_, last, match_.act_of(b.depthwise));
  const int project = match_.only_consumer(b.se ? b.se.scale : last);
  if (!pointwise_conv2d(g_, project)) return {};
  b.project = match_.from(project);
  if (!b.project || match_.act_of(b.project) != Act::none) return {};
  if (b.project.add >= 0 && b.project.residual != input(b)) return {};
  return b;
}

ValueId WholeBlocks::input(const MbconvBlock& b) const {
  return g_.nodes()[(b.expand ? b.expand : b.depthwise).conv].in[0];
}

Attrs WholeBlocks::attrs(const MbconvBlock& b) const {
  return Attrs(g_.nodes()[b.depthwise.conv].attrs)
      .set("act", match_.act_of(b.depthwise))
      .set("residual", b.project.add >= 0);
}

bool WholeBlocks::pays(const MbconvBlock& b, bool every) const {
  Specs in(11);
  in[0] = g_.spec(input(b));
  auto take = [&](int node, size_t weights, size_t bias) {
    if (node < 0) return;
    const Node& n = g_.nodes()[node];
    in[weights] = g_.spec(n.in[1]);
    if (n.op->name != "linear")
      in[bias] = {Shape{weights == 3 ? in[3].shape[2] : in[weights].shape[0]}, DType::f32};
  };
  take(b.expand.conv, 1, 2);
  take(b.depthwise.conv, 3, 4);
  take(b.project.conv, 5, 6);
  take(b.se.squeeze, 7, 8);
  take(b.se.excite, 9, 10);
  const MbconvShape s = mbconv_shape(attrs(b), in);
  return every ? mbconv_plan(s).has_value() : mbconv_pays(s);
}

std::vector<int> FusedMbconvBlock::nodes() const {
  std::vector<int> list = expand.nodes();
  for (int n : project.nodes()) list.push_back(n);
  return list;
}

std::optional<FusedMbconvBlock> WholeBlocks::fused_mbconv_from(int node) const {
  FusedMbconvBlock b;
  if (!match_.is(node, "conv2d") || pointwise_conv2d(g_, node)) return {};
  b.expand = match_.from(node);
  if (!b.expand || b.expand.add >= 0) return {};
  const int project = match_.only_consumer(b.expand.last());
  if (!pointwise_conv2d(g_, project)) return {};
  b.project = match_.from(project);
  if (!b.project || match_.act_of(b.project) != Act::none) return {};
  if (b.project.add >= 0 && b.project.residual != input(b)) return {};
  auto bias = [&](const Chain& c) {
    return TensorSpec{{g_.spec(g_.nodes()[c.conv].in[1]).shape[0]}, DType::f32};
  };
  const TensorSpec in[] = {g_.spec(input(b)), g_.spec(g_.nodes()[node].in[1]), bias(b.expand),
                           g_.spec(g_.nodes()[project].in[1]), bias(b.project)};
  if (!fused_mbconv_tiles(fused_mbconv_shape(attrs(b), in))) return {};
  return b;
}

Attrs WholeBlocks::attrs(const FusedMbconvBlock& b) const {
  return Attrs(g_.nodes()[b.expand.conv].attrs)
      .set("act", match_.act_of(b.expand))
      .set("residual", b.project.add >= 0);
}

}  // namespace gm
