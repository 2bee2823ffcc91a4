// Finding MBConv blocks that one mbconv node can stand for. Private to layers/.
#pragma once
#include <optional>

#include "kernels/mbconv/mbconv_gpu.h"
#include "layers/rewriting.h"

namespace gm {

/// Average pool -> dense -> activation -> dense -> sigmoid -> channel_scale of what was pooled.
struct SqueezeExcite {
  int pool = -1, squeeze = -1, squeeze_act = -1, excite = -1, gate = -1, scale = -1;

  explicit operator bool() const { return scale >= 0; }
  /// Weights and bias of both layers, absent where there are none.
  std::vector<ValueId> layers(const Graph& g) const {
    std::vector<ValueId> list;
    for (int dense : {squeeze, excite})
      for (size_t k : {1, 2}) list.push_back(dense < 0 ? kAbsent : g.nodes()[dense].in[k]);
    return list;
  }
  std::vector<int> nodes() const {
    return *this ? std::vector<int>{pool, squeeze, squeeze_act, excite, gate, scale} : std::vector<int>{};
  }
};
/// The one that alone reads the first output of `node`, with activation `act` between its layers; else empty.
inline SqueezeExcite squeeze_excite_behind(const Graph& g, const Matcher& match, int node, int act) {
  SqueezeExcite s;
  const auto& readers = match.readers(node);
  if (readers.size() != 2) return {};
  auto step = [&](int from, const char* op) {
    const int next = from < 0 ? -1 : match.only_consumer(from);
    return match.is(next, op) ? next : -1;
  };
  s.pool = match.is(readers[0], "global_pool") ? readers[0] : readers[1];
  if (!match.is(s.pool, "global_pool") || g.nodes()[s.pool].attrs.geti("kind")) return {};
  s.squeeze = step(s.pool, "linear");
  s.squeeze_act = step(s.squeeze, "activation");
  s.excite = step(s.squeeze_act, "linear");
  s.gate = step(s.excite, "activation");
  const int scale = step(s.gate, "channel_scale");
  if (scale < 0 || g.nodes()[scale].in[0] != g.nodes()[node].out[0] ||
      g.nodes()[s.squeeze_act].attrs.geti("act") != act ||
      g.nodes()[s.gate].attrs.geti("act") != static_cast<int>(Act::sigmoid))
    return {};
  s.scale = scale;
  return s;
}

/// The nodes of a block; expand and se may be empty.
struct WholeBlock {
  Chain expand, depthwise, project;
  SqueezeExcite se;

  std::vector<int> nodes() const {
    std::vector<int> list = se.nodes();
    for (const Chain* c : {&expand, &depthwise, &project})
      for (int n : c->nodes()) list.push_back(n);
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
    const int last = b.depthwise.last();
    b.se = squeeze_excite_behind(g_, match_, last, match_.act_of(b.depthwise));
    const int project = match_.only_consumer(b.se ? b.se.scale : last);
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
  /// Whether a card is expected to gain by it; every: whether it fits.
  bool pays(const WholeBlock& b, bool every) const {
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

 private:
  bool pointwise(int node) const {
    if (!match_.is(node, "conv2d")) return false;
    const Attrs& a = g_.nodes()[node].attrs;
    for (const char* pad : {"pad_top", "pad_left", "pad_bottom", "pad_right"})
      if (a.geti(pad, 0)) return false;
    return a.geti("kernel") == 1 && a.geti("stride", 1) == 1;
  }

  const Graph& g_;
  const Matcher& match_;
};

}  // namespace gm
