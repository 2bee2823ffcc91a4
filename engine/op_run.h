// One op case set up on a device: memory, inputs and kernels, ready to run any number of times.
#pragma once
#include <vector>

#include "engine/buffer.h"
#include "kernels/common/op.h"

namespace gm {

class OpRun {
 public:
  /// Inputs as the case asks for, the same on every device. Every buffer is filled: denormals and NaNs would
  /// distort timings.
  OpRun(Device& device, const OpDef& op, const OpCase& c);
  OpRun(const OpRun&) = delete;
  OpRun& operator=(const OpRun&) = delete;

  void forward() { kernels_.forward(call(Pass::forward)); }
  /// After a forward(), which writes what it reads.
  void backward() { kernels_.backward(call(Pass::backward)); }
  void run(Pass pass) { pass == Pass::forward ? forward() : backward(); }

 private:
  View tensor(const TensorSpec& spec, Fill how, const std::vector<uint8_t>& given = {});
  OpCall call(Pass pass) const;

  Device& device_;
  Attrs attrs_;
  Context context_;
  KernelPair kernels_;
  int64_t classes_;
  uint32_t stream_ = 0;
  std::vector<Buffer> owned_;
  std::vector<View> in_, out_, saved_, state_, dout_;
  std::vector<GradView> din_;
  View workspace_;
};

}  // namespace gm
