// The kernels of the program: what nvcc's host code registers, and the PTX text in its fat binaries.
#pragma once
#include <driver_types.h>

#include "tests/emulated_card/ptx_machine.h"

namespace gm::emulated {

/// A kernel that can be launched.
struct LoadedKernel {
  const Module* module = nullptr;
  const KernelInfo* info = nullptr;
  int asked_shared = -1;  // cudaFuncSetAttribute's number of dynamic bytes

  /// Dynamic bytes that a launch may ask for.
  size_t most_dynamic() const;
};

/// The kernel of a host function on the card that the thread has selected; its module is read when the first
/// of its kernels is asked for. Null, with the status that says why: no kernel, no PTX, text that the machine
/// does not know.
LoadedKernel* find_kernel(const void* host_function, cudaError_t& status);
/// Of all cards: their variables and what kernels were granted.
void forget_modules();

}  // namespace gm::emulated
