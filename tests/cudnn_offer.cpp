#include "tests/cudnn_offer.h"

#include "kernels/conv2d/conv2d_cudnn_engine.h"
#include "kernels/conv2d/conv2d_cudnn_graph.h"

namespace gm::test {

using namespace cuda::cudnn_graph;

CudnnOffer cudnn_offer(const CudnnQuestion& q, const std::string& device_json, int attempts) {
  CudnnOffer offer;
  try {
    Descriptor device(CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR);
    device.set(CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR,
               std::vector<char>(device_json.begin(), device_json.end()));
    device.finalize("device properties");
    const Graph graph(q, nullptr);
    offer.refusal = "no engine configuration";
    for (auto mode : {CUDNN_HEUR_MODE_A, CUDNN_HEUR_MODE_FALLBACK}) {
      const std::vector<Descriptor> found = graph.configurations(mode, &device, int64_t{64} << 20);
      offer.configurations += static_cast<int>(found.size());
      if (attempts == 0)
        for (const Descriptor& configuration : found)
          offer.names.push_back(configuration_name(configuration));
      for (size_t i = 0; i < found.size() && static_cast<int>(i) < attempts && !offer.plan; ++i) {
        Descriptor plan(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
        plan.set(CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP, device);
        plan.set(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, found[i]);
        const cudnnStatus_t s = cudnnBackendFinalize(plan.raw());
        // 5xxx: the kernel was compiled and only loading it needs a driver.
        offer.plan = s == CUDNN_STATUS_SUCCESS || static_cast<int>(s) / 1000 == 5;
        if (!offer.plan) {
          char text[2048] = "";
          cudnnGetLastErrorString(text, sizeof text);
          offer.refusal = text;
        }
      }
      if (offer.plan || (attempts == 0 && offer.configurations > 0)) break;
    }
  } catch (const Refusal& refusal) {
    offer.refusal = refusal.what();
  }
  return offer;
}

}  // namespace gm::test
