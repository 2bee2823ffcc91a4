// How a test steers the SIMT test device. Free of CUDA names, so any test may include it.
#pragma once
#include <cstdint>
#include <string>

namespace gm::simt {

/// The order in which threads run between two barriers, and in which blocks run. A correct kernel gives the
/// same bits under all of them; a missing barrier usually does not.
enum class Order : uint8_t { ascending, descending, shuffled };

struct Schedule {
  Order order = Order::ascending;
  uint64_t seed = 0;  // of the shuffle, which is drawn anew for every block and every phase between barriers
  std::string str() const;
};

/// Holds for later launches of the calling OS thread.
void set_schedule(Schedule schedule);
Schedule schedule();

/// Counters of the calling OS thread since it started: how much was really executed.
struct Stats {
  uint64_t launches = 0, blocks = 0, threads = 0;
  uint64_t suspensions = 0;  // a thread waiting at a barrier or a warp operation; two fiber switches each
  uint64_t fibers = 0;       // stacks ever needed: 1 while no kernel has a barrier
};
const Stats& stats();

/// Race detection in kernels whose .simt.cpp was compiled with -fsanitize=thread; defined in simt_race.cpp,
/// which only the race-checked test links. A race is an error at the end of its block.
void check_races(bool on);
/// Accesses that were checked since the calling OS thread started: 0 says that nothing was instrumented.
uint64_t checked_accesses();

/// What a green run on this device does not show; printed by the test report.
const char* not_modelled();

}  // namespace gm::simt
