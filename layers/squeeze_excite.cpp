#include "layers/squeeze_excite.h"

#include "kernels/activation/activation.h"
#include "kernels/global_pool/global_pool.h"

namespace gm {

std::vector<ValueId> SqueezeExcite::layers(const Graph& g) const {
  std::vector<ValueId> list;
  for (int dense : {squeeze, excite})
    for (size_t k : {1, 2}) list.push_back(dense < 0 ? kAbsent : g.nodes()[dense].in[k]);
  return list;
}

std::vector<int> SqueezeExcite::nodes() const {
  return *this ? std::vector<int>{pool, squeeze, squeeze_act, excite, gate, scale} : std::vector<int>{};
}

SqueezeExcite squeeze_excite_behind(const Graph& g, const Matcher& match, int node, Act act) {
  SqueezeExcite s;
  const auto& readers = match.readers(node);
  if (readers.size() != 2) return {};
  auto step = [&](int from, const char* op) {
    const int next = from < 0 ? -1 : match.only_consumer(from);
    return match.is(next, op) ? next : -1;
  };
  s.pool = match.is(readers[0], "global_pool") ? readers[0] : readers[1];
  if (!match.is(s.pool, "global_pool") || pool_kind(g.nodes()[s.pool].attrs) != PoolKind::average) return {};
  s.squeeze = step(s.pool, "linear");
  s.squeeze_act = step(s.squeeze, "activation");
  s.excite = step(s.squeeze_act, "linear");
  s.gate = step(s.excite, "activation");
  const int scale = step(s.gate, "channel_scale");
  if (scale < 0 || g.nodes()[scale].in[0] != g.nodes()[node].out[0] ||
      act_of(g.nodes()[s.squeeze_act].attrs) != act || act_of(g.nodes()[s.gate].attrs) != Act::sigmoid)
    return {};
  s.scale = scale;
  return s;
}

}  // namespace gm
