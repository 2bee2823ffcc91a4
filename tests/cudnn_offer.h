// Asking cuDNN for plans of a card that is not there.
#pragma once
#include <string>
#include <vector>

#include "kernels/conv2d/conv2d_cudnn.h"

namespace gm::test {

using cuda::CudnnQuestion;

/// What cuDNN offers for a card that need not be present, described by the JSON of
/// CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION: the number of engine configurations left after our filters, in
/// mode A and, where those make no plan, in mode FALLBACK; and whether one of the first `attempts` of a mode
/// can be made into a plan (kernels compiled at run time can not without a driver; their failure to load
/// counts as success here). With attempts 0 nothing is made: that there are configurations ends the search.
struct CudnnOffer {
  int configurations = 0;
  bool plan = false;
  std::string refusal;             // cuDNN's words when there is none
  std::vector<std::string> names;  // with attempts 0: of the configurations
};
CudnnOffer cudnn_offer(const CudnnQuestion& question, const std::string& device_json, int attempts = 3);

}  // namespace gm::test
