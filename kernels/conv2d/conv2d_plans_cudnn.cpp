#include "kernels/conv2d/conv2d_plans_cudnn.h"

#include <algorithm>

#include "kernels/common/cuda_timing.h"

namespace gm::cuda::cudnn_graph {

namespace {

// Candidates timed for a problem: making a precompiled plan takes less than a millisecond, compiling one
// about a second.
constexpr int kTimed = 8, kTimedCompiled = 3;

struct Candidate {
  std::string name;
  std::unique_ptr<Descriptor> configuration, plan;
};

// Null when the kernel does not compile, as those the heuristics offer may, or needs too much workspace.
std::unique_ptr<Descriptor> make(const CudaLibraries& libraries, const Descriptor& configuration) {
  auto plan = std::make_unique<Descriptor>(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
  plan->set(CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, libraries.cudnn);
  plan->set(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, configuration);
  if (cudnnBackendFinalize(plan->raw()) != CUDNN_STATUS_SUCCESS) return nullptr;
  int64_t bytes = 0, count = 0;
  check(cudnnBackendGetAttribute(plan->raw(), CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64, 1,
                                 &count, &bytes),
        "workspace of a plan");
  return bytes <= static_cast<int64_t>(libraries.workspace_bytes) ? std::move(plan) : nullptr;
}

// The first `most` that can be made; with a name, the one of that name.
std::vector<Candidate> candidates(const CudaLibraries& libraries, const Graph& graph, size_t most,
                                  const std::string* name) {
  std::vector<Candidate> made;
  int compiled = 0;
  for (auto mode : {CUDNN_HEUR_MODE_A, CUDNN_HEUR_MODE_FALLBACK}) {
    for (Descriptor& configuration :
         graph.configurations(mode, nullptr, static_cast<int64_t>(libraries.workspace_bytes))) {
      if (made.size() == most) break;
      const std::string found = configuration_name(configuration);
      if (name && found != *name) continue;
      const auto same = [&](const Candidate& c) { return c.name == found; };
      if (std::any_of(made.begin(), made.end(), same)) continue;  // some are listed twice
      const bool compiles = Engine(configuration).compiled_at_run_time();
      if (compiles && compiled == kTimedCompiled) continue;
      std::unique_ptr<Descriptor> plan = make(libraries, configuration);
      if (!plan) continue;
      compiled += compiles;
      made.push_back({found, std::make_unique<Descriptor>(std::move(configuration)), std::move(plan)});
    }
    if (!made.empty()) break;
  }
  return made;
}

// Index of the fastest; kNoCandidate where there is no memory to find out. Each writes its result to memory
// of its own, so that a sum is not added twice and a tensor is not read after it was written.
size_t time(CudaLibraries& libraries, const CudnnQuestion& q, const std::vector<Candidate>& made,
            Operands operands, void* stream) {
  const ConvGeometry& g = q.g;
  const bool f32 = g.dtype == DType::f32 || q.graph == CudnnGraph::weights_f32;
  void*& out = gradient_of_data(q.graph)      ? operands.x
               : gradient_of_weights(q.graph) ? operands.w
                                              : operands.y;
  const int64_t values = &out == &operands.x   ? g.in_pixels() * g.c
                         : &out == &operands.w ? g.weights()
                                               : g.out_pixels() * g.k;
  const CudaScratch scratch(static_cast<size_t>(values) * (f32 ? 4 : 2));
  out = scratch.data();
  if (!out) return kNoCandidate;
  return fastest_candidate(time_candidates(stream, made.size(), [&](size_t i) {
    try {
      start(libraries, *made[i].plan, operands, stream);
      return true;
    } catch (const Refusal& refusal) {
      if (static_cast<int>(refusal.status) / 1000 == 5)  // the CUDA context is in trouble
        fail("cuDNN convolution: " + std::string(refusal.what()));
      return false;
    }
  }));
}

std::unique_ptr<ConvolutionPlan> make_plan(CudaLibraries& libraries, const CudnnQuestion& q,
                                           const Operands& operands, void* stream) {
  auto plan = std::make_unique<ConvolutionPlan>();
  plan->graph = std::make_unique<Graph>(q, libraries.cudnn);
  const std::string problem = plan_key(q);
  std::vector<Candidate> made;
  if (const std::string* chosen = libraries.choices.find(problem)) {
    made = candidates(libraries, *plan->graph, 1, chosen);
    if (made.empty()) libraries.choices.forget(problem);
  }
  size_t best = 0;
  if (made.empty()) {
    const bool timed = libraries.timing && !being_captured(stream);
    made = candidates(libraries, *plan->graph, timed ? kTimed : 1, nullptr);
    if (made.empty()) return nullptr;
    if (timed) {
      if (made.size() > 1) best = time(libraries, q, made, operands, stream);
      if (best == kNoCandidate)
        best = 0;
      else
        libraries.choices.set(problem, made[best].name);
    }
  }
  plan->configuration = std::move(made[best].configuration);
  plan->plan = std::move(made[best].plan);
  return plan;
}

}  // namespace

ConvolutionPlan* find_plan(CudaLibraries& libraries, const CudnnQuestion& q, const Operands& operands,
                           void* stream) {
  auto [it, created] = libraries.plans.try_emplace(plan_key(q));
  if (created) try {
      it->second = make_plan(libraries, q, operands, stream);
    } catch (const Refusal&) {
    }
  auto* plan = static_cast<ConvolutionPlan*>(it->second.get());
  return plan && !plan->failed ? plan : nullptr;
}

void start(CudaLibraries& libraries, const Descriptor& plan, const Operands& operands, void* stream) {
  check(cudnnSetStream(libraries.cudnn, static_cast<cudaStream_t>(stream)), "set stream");
  Descriptor pack(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
  std::vector<int64_t> uids{kX, kW, kY};
  std::vector<void*> pointers{operands.x, operands.w, operands.y};
  if (operands.bias) uids.push_back(kBias), pointers.push_back(operands.bias);
  if (operands.residual) uids.push_back(kResidual), pointers.push_back(operands.residual);
  pack.set(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, uids);
  pack.set(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, pointers);
  pack.set(CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, libraries.workspace);
  pack.finalize("variant pack");
  check(cudnnBackendExecute(libraries.cudnn, plan.raw(), pack.raw()), "execute");
}

}  // namespace gm::cuda::cudnn_graph
