#include "engine/benchmark.h"

#include <algorithm>
#include <cmath>

#include "kernels/common/clock.h"

namespace gm {

namespace {

// Two warm-ups, then at least five runs.
Timing collect(const std::function<double()>& once, double seconds) {
  for (int warm = 0; warm < 2; ++warm) once();
  std::vector<double> times;
  for (double start = seconds_now(); seconds_now() - start < seconds || times.size() < 5;)
    times.push_back(once());
  std::sort(times.begin(), times.end());
  auto at = [&](double q) {
    return times[static_cast<size_t>(std::lround(q * static_cast<double>(times.size() - 1)))];
  };
  return {at(0.5), at(0.05), at(0.95), static_cast<int>(times.size()), {}};
}

}  // namespace

Timing time_repeated(Device& device, const std::function<void()>& run, double seconds) {
  return collect(
      [&] {
        const double start = seconds_now();
        run();
        device.synchronize();
        return seconds_now() - start;
      },
      seconds);
}

ColdTimer::ColdTimer(Device& device, double seconds)
    : device_(device), seconds_(seconds), flush_(device, 2 * device.cache_bytes()) {}

Timing ColdTimer::operator()(const std::function<void()>& run) {
  return collect(
      [&] {
        // While the card writes this, the host gets ahead of it: the launch is not timed.
        if (flush_.bytes()) device_.fill(flush_.data(), 0, flush_.bytes());
        return device_.time(run);
      },
      seconds_);
}

Timing time_op(ColdTimer& timer, const OpDef& op, OpRun& run, const OpCase& c, Pass pass) {
  Specs in;
  for (const auto& i : c.in) in.push_back(i.spec);
  run.forward();  // saved tensors become what backward expects
  Timing t = timer([&] { run.run(pass); });
  t.cost = op.cost(pass, c.attrs, in);
  return t;
}

double Ceilings::bound(const Cost& c, DType t) const { return std::max(c.bytes / copy, c.flops / matrix(t)); }

Ceilings measure_ceilings(Device& device, double seconds) {
  Ceilings ceilings;
  const bool card = device.backend() == Backend::cuda;
  {
    constexpr size_t kBytes = size_t{256} << 20;
    Buffer from(device, kBytes), to(device, kBytes);
    device.fill(from.data(), 1, kBytes);
    device.fill(to.data(), 2, kBytes);
    ColdTimer timer(device, seconds);
    ceilings.copy = 2.0 * kBytes / timer([&] { device.copy(to.data(), from.data(), kBytes); }).median;
  }
  ColdTimer timer(device, seconds);
  const OpDef& linear = find_op("linear");
  for (DType t : {DType::f32, DType::bf16}) {
    const int64_t n = card ? 8192 : 1024;
    OpCase c;
    c.in = {{{{n, n}, t}}, {{{n, n}, t}}, {{{n}, DType::f32}, Fill::absent}};
    OpRun run(device, linear, c);
    const Timing timing = time_op(timer, linear, run, c, Pass::forward);
    (t == DType::f32 ? ceilings.matrix_f32 : ceilings.matrix_bf16) = timing.cost.flops / timing.median;
  }
  const OpDef& add = find_op("add");
  OpCase c;
  c.in = {{{{1, 1, 1, 8}, DType::f32}}, {{{1, 1, 1, 8}, DType::f32}}};
  OpRun run(device, add, c);
  ceilings.smallest = time_op(timer, add, run, c, Pass::forward).median;
  return ceilings;
}

}  // namespace gm
