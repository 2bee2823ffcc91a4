#include "tests/emulated_card/card.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>

#include "tests/emulated_card/fat_binary.h"

namespace gm::emulated {

namespace {

constexpr size_t kAlignment = 256;
// Between allocations: a kernel that runs past its own does not find the next one.
constexpr size_t kGap = 4096;

thread_local bool in_function = false;
thread_local int selected_card = 0;

/// Of numbers with commas between them the one at `place`, or the last.
size_t number(const char* variable, size_t otherwise, int place = 0) {
  const char* text = std::getenv(variable);
  if (!text || !*text) return otherwise;
  for (const char* comma; place-- > 0 && (comma = std::strchr(text, ','));) text = comma + 1;
  return std::strtoull(text, nullptr, 10);
}

void add_once(std::vector<size_t>& to, const std::vector<size_t>& from) {
  for (size_t i : from)
    if (std::find(to.begin(), to.end(), i) == to.end()) to.push_back(i);
}

}  // namespace

bool in_host_function() { return in_function; }

cudaError_t complain(cudaError_t status, const std::string& what) {
  std::fprintf(stderr, "emulated card: %s: %s\n", what.c_str(), cudaGetErrorString(status));
  return status;
}

void Card::read_environment() {
  boards_.resize(number("GM_EMULATED_CARDS", 1));
  for (int i = 0; i < count(); ++i) {
    Board& board = boards_[static_cast<size_t>(i)];
    board.capability = static_cast<int>(number("GM_EMULATED_CAPABILITY", 80, i));
    board.memory_bytes = number("GM_EMULATED_MEMORY", 4096, i) << 20;
    board.legacy = std::make_shared<CUstream_st>();
    board.legacy->card = i;
  }
  page_locked_bytes_ = number("GM_EMULATED_PAGE_LOCKED", 4096) << 20;
  processors_ = static_cast<int>(number("GM_EMULATED_PROCESSORS", 4));
  const char* order = std::getenv("GM_EMULATED_ORDER");
  others_first_ = order && std::strcmp(order, "others") == 0;
  refuses_capture_ = number("GM_EMULATED_CAPTURE", 1) == 0;
  const char* refused = std::getenv("GM_EMULATED_REFUSE");
  const std::string text = refused ? refused : "";
  refused_ = text.substr(0, text.find(':'));
  refused_call_ = refused_ == text ? 1 : std::strtoll(text.c_str() + refused_.size() + 1, nullptr, 10);
  failing_kernel_ = static_cast<int64_t>(number("GM_EMULATED_FAILING_KERNEL", 0));
}

int Card::selected() const { return selected_card; }

bool Card::select(int card) {
  if (card < 0 || card >= count()) return false;
  selected_card = card;
  return true;
}

// Never destroyed: programs free memory in destructors of static objects.
Card& Card::instance() {
  static Card& card = *new Card;
  return card;
}

// ---- memory

void* Card::allocate(size_t bytes) {
  if (bytes > memory_bytes() - used_bytes()) return nullptr;
  const size_t whole = (bytes + kAlignment - 1) / kAlignment * kAlignment + 2 * kGap;
  auto* const start = static_cast<char*>(std::aligned_alloc(kGap, (whole + kGap - 1) / kGap * kGap));
  if (!start) return nullptr;
  void* const data = start + kGap;
  std::memset(data, 0xFF, bytes);  // NaN
  board().global.add(data, bytes);
  starts_[data] = start;
  board().used += bytes;
  return data;
}

bool Card::release(void* data) {
  const auto found = starts_.find(data);
  if (found == starts_.end()) return false;
  Board& on = boards_[static_cast<size_t>(card_of(data))];
  on.used -= on.global.size(data);
  on.global.remove(data);
  std::free(found->second);
  starts_.erase(found);
  return true;
}

bool Card::holds(uintptr_t address, size_t bytes) const {
  return std::ranges::any_of(boards_, [&](const Board& b) { return b.global.holds(address, bytes); });
}

int Card::card_of(const void* data) const {
  for (int i = 0; i < count(); ++i)
    if (global(i).holds(reinterpret_cast<uintptr_t>(data), 1)) return i;
  return -1;
}

void* Card::lock_pages(size_t bytes) {
  if (bytes > page_locked_bytes_) return nullptr;
  void* const data = std::aligned_alloc(kGap, (bytes + kGap - 1) / kGap * kGap);
  if (!data) return nullptr;
  std::memset(data, 0xFF, bytes);
  page_locked_.add(data, bytes);
  page_locked_bytes_ -= bytes;
  return data;
}

bool Card::unlock_pages(void* data) {
  const size_t bytes = page_locked_.size(data);
  if (!page_locked_.remove(data)) return false;
  page_locked_bytes_ += bytes;
  std::free(data);
  return true;
}

// ---- streams and events

cudaStream_t Card::make_stream(bool blocking) {
  streams_.push_back(std::make_shared<CUstream_st>());
  streams_.back()->card = selected();
  streams_.back()->blocking = blocking;
  return streams_.back().get();
}

std::shared_ptr<CUstream_st> Card::find(cudaStream_t handle) const {
  if (!handle || handle == cudaStreamLegacy) return board().legacy;
  for (const auto& stream : streams_)
    if (stream.get() == handle) return stream;
  return nullptr;
}

void Card::forget(cudaStream_t handle) {
  const auto found =
      std::find_if(streams_.begin(), streams_.end(), [&](auto& s) { return s.get() == handle; });
  if ((*found)->capture) (*found)->capture->invalid = true;
  if (!(*found)->queue.empty()) closed_.push_back(*found);
  streams_.erase(found);
}

cudaEvent_t Card::make_event(bool timing) {
  auto event = std::make_unique<CUevent_st>();
  event->card = selected();
  event->timing = timing;
  const cudaEvent_t handle = event.get();
  events_[handle] = std::move(event);
  return handle;
}

bool Card::forget(cudaEvent_t event) { return events_.erase(event) > 0; }

std::shared_ptr<Mark> Card::mark(const std::shared_ptr<CUstream_st>& stream) {
  auto mark = std::make_shared<Mark>();
  mark->stream = stream;
  stream->queue.push_back({nullptr, nullptr, mark});
  return mark;
}

cudaError_t Card::submit(cudaStream_t handle, std::function<void()> act) {
  const std::shared_ptr<CUstream_st> stream = find(handle);
  if (!stream) return complain(cudaErrorInvalidResourceHandle, "work for a stream that is not there");
  if (Capture* capture = stream->capture.get()) {
    if (capture->invalid) return cudaErrorStreamCaptureInvalidated;
    capture->nodes.push_back({std::move(act), stream->after});
    stream->after = {capture->nodes.size() - 1};
    return cudaSuccess;
  }
  const std::shared_ptr<CUstream_st>& legacy = boards_[static_cast<size_t>(stream->card)].legacy;
  if (stream == legacy) {
    for (const auto& other : streams_) {
      if (!other->blocking || other->card != stream->card) continue;
      if (other->capture) {
        other->capture->invalid = true;
        return cudaErrorStreamCaptureImplicit;
      }
      if (!other->queue.empty()) stream->queue.push_back({nullptr, mark(other), nullptr});
    }
  } else if (stream->blocking && !legacy->queue.empty()) {
    stream->queue.push_back({nullptr, mark(legacy), nullptr});
  }
  stream->queue.push_back({std::move(act), nullptr, nullptr});
  return cudaSuccess;
}

cudaError_t Card::record(cudaEvent_t event, cudaStream_t handle) {
  const std::shared_ptr<CUstream_st> stream = find(handle);
  if (!stream || !known(event) || event->card != stream->card)
    return complain(cudaErrorInvalidResourceHandle, "recording of an event");
  if (stream->capture) {
    if (stream->capture->invalid) return cudaErrorStreamCaptureInvalidated;
    event->capture = stream->capture;
    event->after = stream->after;
    event->mark = nullptr;
    return cudaSuccess;
  }
  // An empty entry first: it brings in the order of the legacy stream.
  if (const cudaError_t status = submit(handle, nullptr); status != cudaSuccess) return status;
  event->capture = nullptr;
  event->mark = mark(stream);
  return cudaSuccess;
}

cudaError_t Card::wait(cudaStream_t handle, cudaEvent_t event) {
  const std::shared_ptr<CUstream_st> stream = find(handle);
  if (!stream || !known(event)) return complain(cudaErrorInvalidResourceHandle, "waiting for an event");
  Capture* const capture = stream->capture.get();
  if (capture && capture->invalid) return cudaErrorStreamCaptureInvalidated;
  if (event->capture) {
    if (event->capture->invalid) return cudaErrorStreamCaptureInvalidated;
    if (capture && stream->capture != event->capture) {
      capture->invalid = event->capture->invalid = true;
      return cudaErrorStreamCaptureMerge;
    }
    if (!capture) stream->after.clear();
    stream->capture = event->capture;
    add_once(stream->after, event->after);
    return cudaSuccess;
  }
  if (capture) {
    capture->invalid = true;
    return cudaErrorStreamCaptureIsolation;
  }
  if (event->mark) stream->queue.push_back({nullptr, event->mark, nullptr});
  return cudaSuccess;
}

void Card::act(const std::function<void()>& what, Board& on) {
  if (on.broken != cudaSuccess || !what) return;
  in_function = true;
  try {
    what();
  } catch (const std::exception& e) {
    on.broken = cudaErrorIllegalAddress;
    std::fprintf(stderr, "emulated card: %s\n", e.what());
  }
  in_function = false;
}

void Card::run(CUstream_st& stream, const Mark* until) {
  while (!stream.queue.empty() && !(until && until->reached)) {
    const Work work = std::move(stream.queue.front());
    stream.queue.pop_front();
    if (work.wait && !work.wait->reached) run(*work.wait->stream, work.wait.get());
    act(work.act, boards_[static_cast<size_t>(stream.card)]);
    if (!work.reach) continue;
    work.reach->reached = true;
    work.reach->when = std::chrono::steady_clock::now();
  }
}

void Card::run_others(const CUstream_st& but) {
  const auto all = streams_;
  for (auto stream = all.rbegin(); stream != all.rend(); ++stream)
    if (stream->get() != &but) run(**stream, nullptr);
}

cudaError_t Card::finish(const std::shared_ptr<CUstream_st>& stream) {
  if (stream->capture) {
    stream->capture->invalid = true;
    return cudaErrorStreamCaptureUnsupported;
  }
  const Board& on = boards_[static_cast<size_t>(stream->card)];
  if (stream == on.legacy && stream->queue.empty())  // waits for the blocking ones all the same
    for (const auto& other : streams_)
      if (other->card == stream->card && other->blocking && !other->capture) run(*other, nullptr);
  if (others_first_) run_others(*stream);
  run(*stream, nullptr);
  return on.broken;
}

cudaError_t Card::finish(const std::shared_ptr<Mark>& mark) {
  if (others_first_ && !mark->reached) run_others(*mark->stream);
  if (!mark->reached) run(*mark->stream, mark.get());
  return boards_[static_cast<size_t>(mark->stream->card)].broken;
}

cudaError_t Card::finish_all(int card) {
  const Board& on = boards_[static_cast<size_t>(card)];
  const auto all = streams_;
  for (auto stream = all.rbegin(); stream != all.rend(); ++stream)
    if ((*stream)->card == card) run(**stream, nullptr);
  run(*on.legacy, nullptr);
  for (const auto& stream : closed_)
    if (stream->card == card) run(*stream, nullptr);
  std::erase_if(closed_, [&](const auto& stream) { return stream->card == card; });
  return on.broken;
}

// ---- captures

cudaError_t Card::begin_capture(cudaStream_t handle, cudaStreamCaptureMode mode) {
  const std::shared_ptr<CUstream_st> stream = find(handle);
  if (!stream) return complain(cudaErrorInvalidResourceHandle, "capture of a stream that is not there");
  if (stream == boards_[static_cast<size_t>(stream->card)].legacy || refuses_capture_)
    return cudaErrorStreamCaptureUnsupported;
  if (stream->capture) return cudaErrorIllegalState;
  auto capture = std::make_shared<Capture>();
  capture->origin = stream.get();
  capture->mode = mode;
  capture->thread = std::this_thread::get_id();
  stream->capture = capture;
  stream->after.clear();
  captures_.push_back(capture);
  return cudaSuccess;
}

cudaError_t Card::end_capture(cudaStream_t handle, cudaGraph_t* graph) {
  *graph = nullptr;
  const std::shared_ptr<CUstream_st> stream = find(handle);
  if (!stream) return complain(cudaErrorInvalidResourceHandle, "capture of a stream that is not there");
  const std::shared_ptr<Capture> capture = stream->capture;
  if (!capture) return cudaErrorIllegalState;
  if (capture->mode != cudaStreamCaptureModeRelaxed && capture->thread != std::this_thread::get_id()) {
    capture->invalid = true;
    return cudaErrorStreamCaptureWrongThread;
  }
  if (capture->origin != stream.get()) {
    capture->invalid = true;
    return cudaErrorStreamCaptureUnmatched;
  }
  // Every node has to be behind the origin's last one.
  std::vector<bool> joined(capture->nodes.size(), false);
  for (size_t i : stream->after) joined[i] = true;
  for (size_t i = joined.size(); i-- > 0;)
    if (joined[i])
      for (size_t before : capture->nodes[i].after) joined[before] = true;
  for (const auto& each : streams_)
    if (each->capture == capture) {
      each->capture = nullptr;
      each->after.clear();
    }
  for (const auto& [event, contents] : events_)
    if (contents->capture == capture) contents->capture = nullptr;
  std::erase_if(captures_, [&](auto& c) { return c.lock() == capture; });
  if (capture->invalid) return cudaErrorStreamCaptureInvalidated;
  if (std::find(joined.begin(), joined.end(), false) != joined.end()) return cudaErrorStreamCaptureUnjoined;
  *graph = new CUgraph_st{std::move(capture->nodes)};
  return cudaSuccess;
}

cudaError_t Card::forbidden_in_capture() {
  cudaError_t status = cudaSuccess;
  for (const auto& each : captures_) {
    const std::shared_ptr<Capture> capture = each.lock();
    if (!capture || capture->mode == cudaStreamCaptureModeRelaxed) continue;
    if (capture->mode == cudaStreamCaptureModeThreadLocal && capture->thread != std::this_thread::get_id())
      continue;
    capture->invalid = true;
    status = cudaErrorStreamCaptureUnsupported;
  }
  return status;
}

cudaError_t Card::forbidden_in_any_capture() {
  cudaError_t status = cudaSuccess;
  for (const auto& each : captures_)
    if (const std::shared_ptr<Capture> capture = each.lock()) {
      capture->invalid = true;
      status = cudaErrorStreamCaptureUnsupported;
    }
  return status;
}

void Card::restart() {
  for (const auto& [data, start] : starts_) std::free(start);
  for (void* data : page_locked_.starts()) std::free(data);
  boards_.clear(), starts_.clear(), page_locked_ = {};
  streams_.clear(), closed_.clear(), events_.clear(), captures_.clear(), calls_.clear();
  graphs_ = 0;
  kernels_ = 0;
  selected_card = 0;
  forget_modules();
  read_environment();
}

}  // namespace gm::emulated
