#include "data/augment_image.h"

#include "kernels/common/backends.h"
#include "kernels/common/op.h"

namespace gm {

void augment_image(const Image& image, const AugmentSample& sample, int size, float* out) {
  static const OpKernel kernel = [] {
    install_cpu_kernels();
    return kernel_table(Backend::cpu)[op_index(find_op("augment"))].forward;
  }();
  static const Attrs attrs;
  static const Context context{.backend = Backend::cpu};
  const View in[] = {
      {const_cast<uint8_t*>(image.rgb.data()), {Shape{static_cast<int64_t>(image.rgb.size())}, DType::u8}},
      {const_cast<AugmentSample*>(&sample), {Shape{1, sizeof sample}, DType::u8}}};
  const View result[] = {{out, {Shape{1, size, size, 3}, DType::f32}}};
  kernel(OpCall{attrs, in, result, {}, {}, {}, {}, {}, context});
}

}  // namespace gm
