// Finding MBConv blocks that one mbconv node can stand for. Private to layers/.
#pragma once
#include <optional>

#include "kernels/mbconv/mbconv_gpu.h"
#include "layers/rewriting.h"

namespace gm {

/// The nodes of a block; expand is empty without an expansion, squeeze ... scale are -1 without
/// squeeze-and-excitation.
struct WholeBlock {
  Chain expand, depthwise, project;
  int pool = -1, squeeze = -1, squeeze_act = -1, excite = -1, gate = -1, scale = -1;

  std::vector<int> nodes() const {
    std::vector<int> list;
    for (const Chain* c : {&expand, &depthwise, &project})
      for (int n : c->nodes()) list.push_back(n);
    for (int n : {pool, squeeze, squeeze_act, excite, gate, scale})
      if (n >= 0) list.push_back(n);
    return list;
  }
};

class WholeBlocks {
 public:
  WholeBlocks(const Graph& g, const Matcher& match) : g_(g), match_(match) {}

  /// The block whose first node this is.
  std::optional<WholeBlock> from(int node) const {
    WholeBlock b;
    int next = node;
    if (pointwise(node)) {
      b.expand = match_.from(node);
      if (!b.expand || b.expand.add >= 0) return {};
      next = match_.only_consumer(b.expand.last());
    }
    if (!match_.is(next, "depthwise_conv2d")) return {};
    b.depthwise = match_.from(next);
    if (!b.depthwise || (b.expand && match_.act_of(b.expand) != match_.act_of(b.depthwise))) return {};
    const int project = after_gate(b);
    if (!pointwise(project)) return {};
    b.project = match_.from(project);
    if (!b.project || match_.act_of(b.project) != 0) return {};
    if (b.project.add >= 0 && b.project.residual != input(b)) return {};
    return b;
  }
  ValueId input(const WholeBlock& b) const {
    return g_.nodes()[(b.expand ? b.expand : b.depthwise).conv].in[0];
  }
  Attrs attrs(const WholeBlock& b) const {
    return Attrs(g_.nodes()[b.depthwise.conv].attrs)
        .set("act", match_.act_of(b.depthwise))
        .set("residual", b.project.add >= 0);
  }
  /// Whether a card is expected to gain by it.
  bool pays(const WholeBlock& b) const {
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
    take(b.squeeze, 7, 8);
    take(b.excite, 9, 10);
    return mbconv_pays(mbconv_shape(attrs(b), in));
  }

 private:
  bool pointwise(int node) const {
    if (!match_.is(node, "conv2d")) return false;
    const Attrs& a = g_.nodes()[node].attrs;
    for (const char* pad : {"pad_top", "pad_left", "pad_bottom", "pad_right"})
      if (a.geti(pad, 0)) return false;
    return a.geti("kernel") == 1 && a.geti("stride", 1) == 1;
  }
  // What reads the depthwise convolution's result, behind the squeeze-and-excitation where there is one.
  int after_gate(WholeBlock& b) const {
    const int last = b.depthwise.last();
    const auto& readers = match_.readers(last);
    if (readers.size() != 2) return match_.only_consumer(last);
    b.pool = match_.is(readers[0], "global_pool") ? readers[0] : readers[1];
    if (!match_.is(b.pool, "global_pool") || g_.nodes()[b.pool].attrs.geti("kind")) return -1;
    b.squeeze = step(b.pool, "linear");
    b.squeeze_act = step(b.squeeze, "activation");
    b.excite = step(b.squeeze_act, "linear");
    b.gate = step(b.excite, "activation");
    b.scale = step(b.gate, "channel_scale");
    if (b.scale < 0 || g_.nodes()[b.scale].in[0] != g_.nodes()[last].out[0]) return -1;
    if (g_.nodes()[b.squeeze_act].attrs.geti("act") != match_.act_of(b.depthwise) ||
        g_.nodes()[b.gate].attrs.geti("act") != static_cast<int>(Act::sigmoid))
      return -1;
    return match_.only_consumer(b.scale);
  }
  int step(int node, const char* op) const {
    const int next = node < 0 ? -1 : match_.only_consumer(node);
    return match_.is(next, op) ? next : -1;
  }

  const Graph& g_;
  const Matcher& match_;
};

}  // namespace gm
