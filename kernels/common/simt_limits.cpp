#include "kernels/common/simt_control.h"

namespace gm::simt {

const char* not_modelled() {
  return "A green run on the SIMT test device says nothing about:\n"
         "  - speed of any kind: coalescing, bank conflicts, occupancy, registers, spills\n"
         "  - __launch_bounds__, device memory limits; alignment only where Vec or UBSan checks it\n"
         "  - code behind #ifdef __CUDACC__: tensor cores, cp.async, TMA, PTX, cub, cooperative groups\n"
         "  - cuDNN and cuBLAS calls\n"
         "  - memory order: fences do nothing, and every write is visible to everybody at once\n"
         "  - concurrency between blocks: they run one after another; waiting for another block hangs\n"
         "  - concurrency within a block: a thread runs undisturbed up to its next barrier or warp\n"
         "    operation, so a race shows only if two schedules disagree, a poisoned value is read,\n"
         "    or the race-checked build runs the kernel\n"
         "  - the order in which float atomics accumulate on a GPU\n"
         "  - rounding of expf and its like, the approximating units and fast-math; fused multiply-add\n"
         "  - streams, events, graphs, asynchronous copies and the errors of the driver\n";
}

}  // namespace gm::simt
