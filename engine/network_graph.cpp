#include "engine/network_graph.h"

namespace gm {

PlanOptions training_options(const NetworkGraph& g, bool recompute, bool accumulate) {
  return {.training = true,
          .loss = g.loss,
          .keep = {g.loss, g.correct},
          .recompute = recompute,
          .accumulate = accumulate};
}
PlanOptions evaluation_options(const NetworkGraph& g) { return {.keep = {g.loss, g.correct, g.logits}}; }

}  // namespace gm
