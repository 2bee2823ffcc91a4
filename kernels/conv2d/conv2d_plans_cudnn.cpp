#include "kernels/conv2d/conv2d_plans_cudnn.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdio>

#include "kernels/common/cuda_results.h"
#include "kernels/conv2d/conv2d.h"
#include "kernels/conv2d/conv2d_own.h"
#include "kernels/conv2d/conv2d_verdict_cudnn.h"
#include "kernels/linear/linear_cublas.h"

namespace gm::cuda::cudnn_graph {

namespace {

// Candidates timed for a problem: making a precompiled plan takes less than a millisecond, compiling one
// about a second.
constexpr int kTimed = 8, kTimedCompiled = 2, kTimedDense = 6;
// Before the names of plans that add the gradient of weights to zeros.
const std::string kAdds = "added, ";
// Names of candidates that are not cuDNN's.
const char kProduct[] = "cuBLASLt";  // its own algorithms are timed by linear_cublas.cpp
const char kOwn[] = "own";

struct Candidate {
  std::string name;
  AnsweredBy by = AnsweredBy::cudnn;
  std::unique_ptr<Descriptor> configuration, plan;  // cuDNN's
  bool adds = false;

  Answer answer() const { return {by, plan.get()}; }
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

// Those that are not cuDNN's.
std::vector<Candidate> other_candidates(const CudaLibraries& libraries, const CudnnQuestion& q) {
  std::vector<Candidate> others;
  if (is_product(q) && libraries.cublas) others.push_back({kProduct, AnsweredBy::cublas});
  const bool room = conv_workspace(Backend::cuda, Pass::backward, q.g) <= libraries.workspace_bytes;
  if (own_serves(q) && room) others.push_back({kOwn, AnsweredBy::own});
  return others;
}

// The first `most` of cuDNN that can be made, and the others unless one is enough; with a name, the one of
// that name.
std::vector<Candidate> candidates(const CudaLibraries& libraries, const CudnnQuestion& q, const Graph& graph,
                                  size_t most, const std::string* name) {
  std::vector<Candidate> others = other_candidates(libraries, q), made;
  if (name)
    for (Candidate& c : others)
      if (c.name == *name) {
        made.push_back(std::move(c));
        return made;
      }
  // With f32 sums of other channels cuDNN's engine 2 is off by the result's own size.
  if (q.graph == CudnnGraph::weights_f32 && !sums_in_f32(q.g)) {
    if (name) others.clear();
    return others;
  }
  // Of larger filters there are few and their kernels are far apart in speed.
  const int most_compiled = q.g.kernel > 1 ? kTimedDense : kTimedCompiled;
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
      if (compiles && compiled == most_compiled) continue;
      std::unique_ptr<Descriptor> plan = make(libraries, configuration);
      if (!plan) continue;
      compiled += compiles;
      made.push_back({found, AnsweredBy::cudnn, std::make_unique<Descriptor>(std::move(configuration)),
                      std::move(plan)});
    }
    if (!made.empty()) break;
  }
  if (!name && (most > 1 || made.empty()))
    for (Candidate& c : others) made.push_back(std::move(c));
  return made;
}

void start_product(const Context& ctx, const CudnnQuestion& q, const ConvOperands& o) {
  const LinearShape s{q.g.out_pixels(), q.g.c, q.g.k, q.g.dtype};
  const bool done = gradient_of_data(q.graph) ? cublas_data_gradient(ctx, s, o.w, o.y, o.x,
                                                                     q.graph == CudnnGraph::backward_data_add)
                    : gradient_of_weights(q.graph)
                        ? cublas_weight_gradient(ctx, s, o.x, o.y, static_cast<float*>(o.w), false)
                        : cublas_product(ctx, s, o.x, o.w, static_cast<const float*>(o.bias), o.y);
  if (!done) throw Refusal(CUDNN_STATUS_NOT_SUPPORTED, "cuBLASLt does not serve the product");
}

// Index of the fastest; kNoCandidate where there is no memory to find out. Each writes its result to memory
// of its own, so that a sum is not added twice and a tensor is not read after it was written.
size_t time(const Context& ctx, const CudnnQuestion& q, const std::vector<Candidate>& made,
            ConvOperands operands, void* zeros) {
  const CudaScratch scratch(static_cast<size_t>(result_values(q)) * dtype_bytes(result_type(q)));
  void* const out = operands.*result_of(q.graph) = scratch.data();
  if (!out) return kNoCandidate;
  return fastest_candidate(time_candidates(ctx.stream, made.size(), [&](size_t i) {
    try {
      if (gradient_of_weights(q.graph)) operands.residual = made[i].adds ? zeros : nullptr;
      start(ctx, q, made[i].answer(), operands);
      return true;
    } catch (const Refusal&) {
      return false;
    }
  }));
}

// Takes out what does not compute the problem, and what refuses it.
void drop_wrong(const Context& ctx, const CudnnQuestion& q, std::vector<Candidate>& made,
                const ConvOperands& operands, void* zeros) {
  OwnResult own(ctx, q, operands);
  if (!made.empty() && !own.known())
    std::fprintf(stderr, "%s: no room on the card to check the library's results\n", plan_key(q).c_str());
  std::erase_if(made, [&](const Candidate& c) {
    try {
      const double off = own.off(c.answer(), c.adds ? zeros : nullptr);
      if (off <= kWrong) return false;
      std::fprintf(stderr, "%s: result of %s off by %.2g of its size; not used\n", plan_key(q).c_str(),
                   c.name.c_str(), off);
    } catch (const Refusal&) {
      cudaGetLastError();  // a launch that was refused leaves its error behind
    }
    return true;
  });
}

std::unique_ptr<ConvolutionPlan> make_plan(const Context& ctx, const CudnnQuestion& q,
                                           const ConvOperands& operands) {
  CudaLibraries& libraries = *ctx.libraries;
  auto plan = std::make_unique<ConvolutionPlan>();
  plan->graph = std::make_unique<Graph>(q, libraries.cudnn);
  const std::string problem = plan_key(q);
  std::vector<Candidate> made;
  // Adds to `made` what the graph that adds offers, the candidate of one name or all.
  auto append_sums = [&](size_t most, const std::string* name) {
    CudnnQuestion adding = q;
    adding.graph = CudnnGraph::weights_f32_add;
    try {
      plan->sum = std::make_unique<Graph>(adding, libraries.cudnn);
      for (Candidate& c : candidates(libraries, adding, *plan->sum, most, name)) {
        c.name = kAdds + c.name;
        c.adds = true;
        made.push_back(std::move(c));
      }
    } catch (const Refusal&) {
    }
  };
  if (const std::string* chosen = libraries.choices.find(problem)) {
    const std::string of_sum = chosen->starts_with(kAdds) ? chosen->substr(kAdds.size()) : "";
    if (of_sum.empty())
      made = candidates(libraries, q, *plan->graph, 1, chosen);
    else if (also_as_sum(q))
      append_sums(1, &of_sum);
    if (made.empty()) libraries.choices.forget(problem);
  }
  size_t best = 0;
  if (made.empty()) {
    const bool captured = being_captured(ctx.stream), timed = libraries.timing && !captured;
    made = candidates(libraries, q, *plan->graph, timed ? kTimed : 1, nullptr);
    const CudaScratch zeros(timed && also_as_sum(q) ? static_cast<size_t>(4 * q.g.weights()) : 0);
    if (zeros.data()) append_sums(kTimedDense, nullptr);
    if (!captured) drop_wrong(ctx, q, made, operands, zeros.data());
    if (made.empty()) return nullptr;
    if (timed) {
      if (made.size() > 1) best = time(ctx, q, made, operands, zeros.data());
      if (best == kNoCandidate)
        best = 0;
      else
        libraries.choices.choose(problem, made[best].name);
    }
  }
  plan->configuration = std::move(made[best].configuration);
  plan->plan = std::move(made[best].plan);
  plan->by = made[best].by;
  plan->adds = made[best].adds;
  return plan;
}

}  // namespace

ConvolutionPlan* find_plan(const Context& ctx, const CudnnQuestion& q, const ConvOperands& operands) {
  const auto [it, created] = ctx.libraries->plans.try_emplace(plan_key(q));
  std::unique_ptr<CudaPlan>& place = it->second;  // stays valid when timing a product adds the product's plan
  if (created) try {
      place = make_plan(ctx, q, operands);
    } catch (const Refusal&) {
    }
  auto* plan = static_cast<ConvolutionPlan*>(place.get());
  return plan && !plan->failed ? plan : nullptr;
}

void start(const Context& ctx, const CudnnQuestion& q, const Answer& answer, const ConvOperands& operands) {
  const CudaLibraries& libraries = *ctx.libraries;
  if (answer.by == AnsweredBy::cublas) return start_product(ctx, q, operands);
  if (answer.by == AnsweredBy::own) return own_convolution(ctx, q, operands, libraries.workspace, false);
  check(cudnnSetStream(libraries.cudnn, static_cast<cudaStream_t>(ctx.stream)), "set stream");
  if (gradient_of_weights(q.graph) && operands.residual &&
      cudaMemsetAsync(operands.residual, 0, static_cast<size_t>(4 * q.g.weights()),
                      static_cast<cudaStream_t>(ctx.stream)) != cudaSuccess)
    throw Refusal(CUDNN_STATUS_EXECUTION_FAILED, "zeros to add to");
  Descriptor pack(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
  std::vector<int64_t> uids{kX, kW, kY};
  std::vector<void*> pointers{operands.x, operands.w, operands.y};
  if (operands.bias) uids.push_back(kBias), pointers.push_back(operands.bias);
  if (operands.residual) uids.push_back(kResidual), pointers.push_back(operands.residual);
  pack.set(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, uids);
  pack.set(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, pointers);
  pack.set(CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, libraries.workspace);
  pack.finalize("variant pack");
  check(cudnnBackendExecute(libraries.cudnn, answer.plan->raw(), pack.raw()), "execute");
}

}  // namespace gm::cuda::cudnn_graph
