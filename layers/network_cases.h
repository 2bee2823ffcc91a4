// The distinct ops of a network's graph as cases: what a benchmark or a library must be able to run.
#pragma once
#include <string>
#include <vector>

#include "engine/graph.h"

namespace gm {

struct NetworkCase {
  const OpDef* op;
  OpCase c;
  std::vector<std::string> layers;  // all nodes of this shape
};

/// In the order of first appearance. Nodes that differ only in their random draws count as one.
std::vector<NetworkCase> network_cases(const Graph& graph);

}  // namespace gm
