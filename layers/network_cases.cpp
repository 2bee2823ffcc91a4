#include "layers/network_cases.h"

#include <map>

namespace gm {

std::vector<NetworkCase> network_cases(const Graph& graph) {
  std::vector<NetworkCase> cases;
  std::map<std::string, size_t> known;
  for (const Node& n : graph.nodes()) {
    NetworkCase found{n.op, {}, {n.name}};
    found.c.attrs = n.attrs;
    if (n.attrs.has("stream")) found.c.attrs.set("stream", 0);
    if (n.attrs.get("rate", 0) > 0) found.c.attrs.set("rate", 0.1);
    found.c.large = true;
    std::string key = std::string(n.op->name) + " " + found.c.attrs.str();
    for (ValueId id : n.in) {
      CaseInput input{{}, Fill::absent};
      if (id != kAbsent) {
        const Value& v = graph.value(id);
        input = {v.spec, v.spec.dtype == DType::i32 ? Fill::labels
                         : v.kind == Value::input   ? Fill::pixels
                                                    : Fill::normal};
      }
      found.c.in.push_back(input);
      key += " " + (id == kAbsent ? std::string("-") : input.spec.str());
    }
    const auto [it, added] = known.try_emplace(key, cases.size());
    if (added)
      cases.push_back(std::move(found));
    else
      cases[it->second].layers.push_back(n.name);
  }
  return cases;
}

}  // namespace gm
