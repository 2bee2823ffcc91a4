// A device for tests whose streams lag behind the host as those of a card may: nothing that is started runs
// before somebody waits for it, or uploads run at once while kernels do not.
#pragma once
#include <cstring>
#include <deque>
#include <utility>

#include "engine/device.h"

namespace gm::test {

struct LaggingOptions {
  bool uploads_at_once = false;  // else as late as possible
  bool capture = true;           // else it is refused
};

class LaggingDevice : public Device {
 public:
  LaggingDevice(const std::string& base, LaggingOptions options)
      : base_(open_device(base, {.threads = 2})), options_(options) {}

  Backend backend() const override { return base_->backend(); }
  std::string description() const override { return "lagging " + base_->description(); }
  void* allocate(size_t bytes) override {
    void* data = base_->allocate(bytes);
    std::memset(data, 0xFF, bytes);  // NaN, and no index of anything
    return data;
  }
  void release(void* data) noexcept override { base_->release(data); }
  void upload(void* to, const void* from, size_t bytes) override {
    in_order(), base_->upload(to, from, bytes);
  }
  void download(void* to, const void* from, size_t bytes) override {
    in_order(), base_->download(to, from, bytes);
  }
  void copy(void* to, const void* from, size_t bytes) override { in_order(), base_->copy(to, from, bytes); }
  void fill(void* to, unsigned char byte, size_t bytes) override { in_order(), base_->fill(to, byte, bytes); }
  void synchronize() override { in_order(); }
  Context context() const override {
    const_cast<LaggingDevice*>(this)->in_order();  // a kernel is about to be called
    return base_->context();
  }
  size_t peak_bytes() const override { return 0; }

  void start_upload(void* to, const void* from, size_t bytes) override {
    ++uploads;
    if (options_.uploads_at_once) return void(std::memcpy(to, from, bytes));
    line(Stream::uploads).push([=] { std::memcpy(to, from, bytes); });
  }
  void start_download(void* to, const void* from, size_t bytes) override {
    const auto work = [=] { std::memcpy(to, from, bytes); };
    running_ ? work() : line(Stream::kernels).push(work);
  }
  std::unique_ptr<Event> make_event() override { return std::make_unique<Place>(); }
  void record(Event& event, Stream stream) override {
    static_cast<Place&>(event).stream = stream;
    static_cast<Place&>(event).end = line(stream).given;
  }
  void wait(const Event& event) override { run(static_cast<const Place&>(event)); }
  void wait(Stream stream, const Event& event) override {
    const Place place = static_cast<const Place&>(event);
    line(stream).push([this, place] { run(place); });
  }
  std::unique_ptr<CapturedGraph> capture(const std::function<void()>& work, std::string& reason) override {
    if (!options_.capture) {
      reason = "told to refuse";
      return nullptr;
    }
    ++captures;
    struct Recorded : CapturedGraph {
      Recorded(LaggingDevice& d, std::function<void()> w) : device(d), work(std::move(w)) {}
      void start() override { ++device.replays, device.line(Stream::kernels).push(work); }
      LaggingDevice& device;
      std::function<void()> work;
    };
    return std::make_unique<Recorded>(*this, work);
  }

  int uploads = 0, captures = 0, replays = 0;

 private:
  struct Place : Event {
    Place() = default;
    Place(Stream s, int64_t e) : stream(s), end(e) {}
    Stream stream = Stream::kernels;
    int64_t end = 0;
  };
  struct Line {
    std::deque<std::function<void()>> waiting;
    int64_t given = 0, done = 0;
    void push(std::function<void()> work) { waiting.push_back(std::move(work)), ++given; }
  };
  Line& line(Stream stream) { return lines_[stream == Stream::uploads]; }
  void run(const Place& place) {
    Line& l = line(place.stream);
    while (l.done < place.end) {
      const auto work = std::move(l.waiting.front());
      l.waiting.pop_front();
      ++l.done;
      const bool before = std::exchange(running_, true);
      work();
      running_ = before;
    }
  }
  // What the host calls directly comes behind everything in the stream of kernels.
  void in_order() {
    if (!running_) run(Place(Stream::kernels, line(Stream::kernels).given));
  }

  std::unique_ptr<Device> base_;
  LaggingOptions options_;
  Line lines_[2];
  bool running_ = false;
};

}  // namespace gm::test
