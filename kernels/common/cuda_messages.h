// What a user is told when a card or its libraries cannot be used: one line each, apart from the calls that
// find it out, so that the lines are tested without a card. Status codes are passed as the numbers of
// cudaError_t and cudnnStatus_t.
#pragma once
#include <cstddef>
#include <string>

namespace gm {

namespace cuda_status {  // cudaError_t
constexpr int success = 0, memory_allocation = 2, stub_library = 34, insufficient_driver = 35,
              no_device = 100, no_kernel_image = 209, system_not_ready = 802, system_driver_mismatch = 803;
}
namespace cudnn_status {  // cudnnStatus_t
constexpr int version_mismatch = 1002, loading_failed = 1008, incompatible_driver = 3005,
              sublibrary_unavailable = 3009, host_allocation_failed = 4003, device_allocation_failed = 4004;
}

/// "580.65\nmore" -> "580.65; more": libraries write several lines, errors are one.
std::string one_line(const std::string& text);

/// Why there is no card to open. status and words: of cudaGetDeviceCount (success: it counted none);
/// versions as CUDA counts them (12040 is 12.4), driver 0: there is none.
std::string no_device_text(int status, const std::string& words, int driver, int runtime);

/// A call that failed: "upload: an illegal memory access was encountered", and what to do where that is
/// known.
std::string cuda_error_text(const std::string& what, int status, const std::string& words);

/// "cuda:0 (Tesla V100) has architecture sm_70; this build has code for 80-real,90 (GM_CUDA_ARCHS)", or
/// nothing when the card runs a build for those architectures: "NN-real" is machine code for cards of the
/// same generation, "NN-virtual" PTX for all later ones, "NN" both.
std::string architecture_problem(int index, const std::string& name, int major, int minor,
                                 const std::string& built_for);

std::string out_of_memory_text(size_t asked, size_t free, size_t total);
/// A card has no room for what every run needs, whatever its batch: it is small, or others use it.
std::string full_card_text(int index, size_t asked, size_t free, size_t total);

constexpr size_t kOldestCudnn = 90000;  // the graph API in the form used here
/// "9.19.0" of 91900: cuDNN and cuBLASLt.
std::string version_text(size_t version);
/// Nothing when the version will do.
std::string cudnn_version_problem(size_t version);
/// cuDNN was found and does not start. detail: its own words, may be empty.
std::string cudnn_start_text(size_t version, int status, const std::string& words, const std::string& detail);

}  // namespace gm
