#include "engine/jpeg_decoder_cuda.h"

#ifdef GM_WITH_NVJPEG
#include <cuda_runtime.h>
#include <dlfcn.h>
#include <nvjpeg.h>

#include <cstring>
#include <mutex>
#include <type_traits>
#include <vector>

namespace gm {

namespace {

// Loaded when it is first wanted: a machine without the library runs the same program.
struct Library {
  decltype(&nvjpegCreateEx) create = nullptr;
  decltype(&nvjpegDestroy) destroy = nullptr;
  decltype(&nvjpegGetProperty) property = nullptr;
  decltype(&nvjpegJpegStateCreate) create_state = nullptr;
  decltype(&nvjpegJpegStateDestroy) destroy_state = nullptr;
  decltype(&nvjpegGetImageInfo) info = nullptr;
  decltype(&nvjpegDecodeBatchedInitialize) begin = nullptr;
  decltype(&nvjpegDecodeBatched) decode = nullptr;

  /// False and the loader's reason.
  bool load(std::string& reason) {
    reason.clear();
    const std::string name = "libnvjpeg.so." + std::to_string(NVJPEG_VER_MAJOR);
    void* handle = nullptr;
    for (const std::string& path : {name, std::string(GM_NVJPEG_LIBRARY)})
      if (!handle) handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (!handle) {
      reason = name + " is not found";
      return false;
    }
    auto find = [&](auto& function, const char* symbol) {
      function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(handle, symbol));
      if (!function) reason = name + " has no " + symbol;
    };
    find(create, "nvjpegCreateEx");
    find(destroy, "nvjpegDestroy");
    find(property, "nvjpegGetProperty");
    find(create_state, "nvjpegJpegStateCreate");
    find(destroy_state, "nvjpegJpegStateDestroy");
    find(info, "nvjpegGetImageInfo");
    find(begin, "nvjpegDecodeBatchedInitialize");
    find(decode, "nvjpegDecodeBatched");
    return reason.empty();
  }
  int version(libraryPropertyType part) const {
    int value = 0;
    property(part, &value);
    return value;
  }
};

// Chroma between its samples as decode_image has it; libraries before 12.1 only repeat samples.
#ifdef NVJPEG_FLAGS_UPSAMPLING_WITH_INTERPOLATION
constexpr unsigned kInterpolate = NVJPEG_FLAGS_UPSAMPLING_WITH_INTERPOLATION;
#else
constexpr unsigned kInterpolate = 0;
#endif

// What one thread needs to decode one file after the other: nothing of it may be shared.
class Lane {
 public:
  explicit Lane(const Library& library) : library_(library) {}
  Lane(const Lane&) = delete;
  Lane& operator=(const Lane&) = delete;
  ~Lane() {
    if (state_) library_.destroy_state(state_);
    if (stream_) cudaStreamDestroy(stream_);
    cudaFree(device_);
    cudaFreeHost(host_);
  }

  bool open(nvjpegHandle_t handle) {
    return library_.create_state(handle, &state_) == NVJPEG_STATUS_SUCCESS &&
           cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking) == cudaSuccess;
  }
  bool decode(nvjpegHandle_t handle, std::span<const uint8_t> file, int width, std::span<uint8_t> rgb) {
    if (!room(rgb.size())) return false;
    // Batches of one: the decoding units take batches only. Begun anew after a file that failed.
    if (!begun_ && library_.begin(handle, state_, 1, 1, NVJPEG_OUTPUT_RGBI) != NVJPEG_STATUS_SUCCESS)
      return false;
    const unsigned char* data = file.data();
    const size_t bytes = file.size();
    nvjpegImage_t out{};
    out.channel[0] = static_cast<unsigned char*>(device_);
    out.pitch[0] = static_cast<size_t>(width) * 3;
    begun_ = library_.decode(handle, state_, &data, &bytes, &out, stream_) == NVJPEG_STATUS_SUCCESS &&
             cudaMemcpyAsync(host_, device_, rgb.size(), cudaMemcpyDeviceToHost, stream_) == cudaSuccess;
    begun_ = cudaStreamSynchronize(stream_) == cudaSuccess && begun_;
    if (!begun_) return false;
    std::memcpy(rgb.data(), host_, rgb.size());
    return true;
  }

 private:
  bool room(size_t bytes) {
    if (bytes <= bytes_) return true;
    cudaFree(device_);
    cudaFreeHost(host_);
    device_ = host_ = nullptr;
    bytes_ = 0;
    if (cudaMalloc(&device_, bytes) != cudaSuccess || cudaMallocHost(&host_, bytes) != cudaSuccess)
      return false;
    bytes_ = bytes;
    return true;
  }

  const Library& library_;
  nvjpegJpegState_t state_ = nullptr;
  cudaStream_t stream_ = nullptr;
  bool begun_ = false;
  void *device_ = nullptr, *host_ = nullptr;  // the picture, there and page-locked here
  size_t bytes_ = 0;
};

class NvJpeg : public JpegDecoder {
 public:
  explicit NvJpeg(int index) : index_(index) {}
  ~NvJpeg() override {
    cudaSetDevice(index_);
    idle_.clear();
    if (handle_) library_.destroy(handle_);
  }

  bool open(std::string& reason) {
    if (!library_.load(reason)) return false;
    cudaSetDevice(index_);
    nvjpegStatus_t status = NVJPEG_STATUS_NOT_INITIALIZED;
    for (const nvjpegBackend_t backend : {NVJPEG_BACKEND_HARDWARE, NVJPEG_BACKEND_DEFAULT})
      for (const unsigned flags : {kInterpolate, 0u}) {
        if (handle_) continue;
        status = library_.create(backend, nullptr, nullptr, flags, &handle_);
        if (status != NVJPEG_STATUS_SUCCESS) handle_ = nullptr;
        units_ = backend == NVJPEG_BACKEND_HARDWARE;
      }
    cudaGetLastError();  // of a backend that this card does not have
    if (!handle_) reason = "libnvjpeg does not start (status " + std::to_string(status) + ")";
    return handle_ != nullptr;
  }

  std::string description() const override {
    return "nvJPEG " + std::to_string(library_.version(MAJOR_VERSION)) + "." +
           std::to_string(library_.version(MINOR_VERSION)) + (units_ ? " (decoding units)" : "");
  }

  bool decode(std::span<const uint8_t> file, int width, int height, std::span<uint8_t> rgb) override {
    int components = 0, widths[NVJPEG_MAX_COMPONENT] = {}, heights[NVJPEG_MAX_COMPONENT] = {};
    nvjpegChromaSubsampling_t chroma = NVJPEG_CSS_UNKNOWN;
    if (library_.info(handle_, file.data(), file.size(), &components, &chroma, widths, heights) !=
            NVJPEG_STATUS_SUCCESS ||
        components != 3 || widths[0] != width || heights[0] != height ||
        rgb.size() != static_cast<size_t>(width) * height * 3)
      return false;
    if (cudaSetDevice(index_) != cudaSuccess) return false;
    std::unique_ptr<Lane> lane = take();
    const bool decoded = lane && lane->decode(handle_, file, width, rgb);
    if (!decoded) cudaGetLastError();  // no room, say: not the next call's error
    if (lane) give_back(std::move(lane));
    return decoded;
  }

 private:
  std::unique_ptr<Lane> take() {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      if (!idle_.empty()) {
        auto lane = std::move(idle_.back());
        idle_.pop_back();
        return lane;
      }
    }
    auto lane = std::make_unique<Lane>(library_);
    return lane->open(handle_) ? std::move(lane) : nullptr;
  }
  void give_back(std::unique_ptr<Lane> lane) {
    std::lock_guard<std::mutex> lock(mutex_);
    idle_.push_back(std::move(lane));
  }

  int index_;
  Library library_;
  nvjpegHandle_t handle_ = nullptr;
  bool units_ = false;
  std::mutex mutex_;  // guards idle_
  std::vector<std::unique_ptr<Lane>> idle_;
};

}  // namespace

std::unique_ptr<JpegDecoder> open_nvjpeg(int index, std::string& reason) {
  auto decoder = std::make_unique<NvJpeg>(index);
  if (!decoder->open(reason)) return nullptr;
  return decoder;
}

}  // namespace gm

#else

namespace gm {

std::unique_ptr<JpegDecoder> open_nvjpeg(int, std::string& reason) {
  reason = "built without nvjpeg.h";
  return nullptr;
}

}  // namespace gm

#endif
