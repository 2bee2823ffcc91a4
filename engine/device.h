// Where tensors live and kernels run: the CPU (default), one CUDA card, or simt (CUDA sources on fibers;
// tests).
#pragma once
#include <cstddef>
#include <functional>
#include <memory>
#include <string>

#include "engine/jpeg_decoder.h"
#include "kernels/common/context.h"

namespace gm {

/// A card works through two streams side by side: kernels with the copies between them, and uploads.
enum class Stream { kernels, uploads };
/// A point in the work of a stream (Device::record).
class Event {
 public:
  virtual ~Event() = default;
};
/// Work recorded once (Device::capture) and started as often as wanted, on the stream of kernels.
class CapturedGraph {
 public:
  virtual ~CapturedGraph() = default;
  virtual void start() = 0;
};

class Device {
 public:
  virtual ~Device() = default;

  virtual Backend backend() const = 0;
  /// "cpu (2 threads, avx512)" or "NVIDIA H200 (cuda:0, sm_90, 139.8 GiB, CUDA driver 13.0)".
  virtual std::string description() const = 0;
  /// 256-byte aligned; throws gm::Error that names the size and what is free when there is no room.
  virtual void* allocate(size_t bytes) = 0;
  virtual void release(void* data) noexcept = 0;
  /// Host to device and back. Ordered with kernels of this device; download returns when the data is there.
  virtual void upload(void* device, const void* host, size_t bytes) = 0;
  virtual void download(void* host, const void* device, size_t bytes) = 0;
  virtual void copy(void* to, const void* from, size_t bytes) = 0;
  virtual void fill(void* data, unsigned char byte, size_t bytes) = 0;
  /// Waits for all kernels; throws gm::Error if one failed.
  virtual void synchronize() = 0;
  /// Seconds that the work started by `run` takes: by the card's own clock (events), else by the host's.
  virtual double time(const std::function<void()>& run);
  /// Last-level cache of a card; 0 on the host, whose caches nobody flushes.
  virtual size_t cache_bytes() const { return 0; }

  // Without waiting. The host's own memory does everything at once, so that the defaults serve it.

  /// Host memory that a card reads and writes by itself (page-locked).
  virtual void* allocate_host(size_t bytes) { return allocate(bytes); }
  virtual void release_host(void* data) noexcept { release(data); }
  /// Starts a copy from such memory on the stream of uploads.
  virtual void start_upload(void* device, const void* host, size_t bytes) { upload(device, host, bytes); }
  /// Starts a copy into such memory, in order with the kernels.
  virtual void start_download(void* host, const void* device, size_t bytes) { download(host, device, bytes); }
  virtual std::unique_ptr<Event> make_event() { return std::make_unique<Event>(); }
  /// The event now stands behind all work given to the stream so far.
  virtual void record(Event&, Stream) {}
  /// The host waits until the event is reached; throws gm::Error if a kernel failed.
  virtual void wait(const Event&) {}
  /// The stream waits for the event, the host does not.
  virtual void wait(Stream, const Event&) {}
  /// Records what `work` gives to the stream of kernels instead of running it: as one CUDA graph. Null and a
  /// reason where that is not possible; then nothing has run, and `work` may be called directly.
  virtual std::unique_ptr<CapturedGraph> capture(const std::function<void()>& work, std::string& reason);
  /// Decodes JPEG files on the card; null and a reason where it cannot. Must not outlive the device.
  virtual std::unique_ptr<JpegDecoder> make_jpeg_decoder(std::string& reason);
  /// Handles for kernel calls on this device.
  virtual Context context() const = 0;
  /// Memory of a card that nobody uses; 0 on the host, where memory is not set aside.
  virtual size_t free_bytes() const { return 0; }
  /// Bytes of helper memory the device keeps besides allocations (thread scratch, library workspaces).
  virtual size_t overhead_bytes() const { return 0; }
  /// Most memory in use at any time so far. On a card: allocations and library workspaces; on the host: the
  /// resident memory of the process, 0 where the system does not say.
  virtual size_t peak_bytes() const = 0;
};

struct DeviceOptions {
  int threads = 0;            // cpu: 0 = all processors of this process
  bool deterministic = true;  // cuda: refuse engines whose sums depend on timing
  bool tf32 = false;          // cuda: the libraries' products of f32 tensors round their factors to 11 bits
};

/// "auto" ("cuda", or the CPU where no_cuda_reason() has one), "cpu", "cuda" (the first card), "cuda:1"; in
/// tests and gm_check also "simt" and "ref". Throws gm::Error when the named device does not exist or does
/// not start.
std::unique_ptr<Device> open_device(const std::string& name, const DeviceOptions& options = {});
/// Why the first card cannot be used ("this build has no CUDA ...", "no NVIDIA driver ...", an architecture
/// that this build has no code for); empty when it can.
std::string no_cuda_reason();

}  // namespace gm
