// Calls one op with given values: for tests that need more than the walk over its cases.
#pragma once
#include <functional>
#include <list>
#include <memory>
#include <string>
#include <vector>

#include "engine/buffer.h"
#include "kernels/common/op.h"
#include "tests/require_cuda.h"

namespace gm::test {

/// Tensors on one device, living as long as this object, and calls with them.
class Direct {
 public:
  /// own_kernels: without libraries, so that no clock decides between theirs and ours.
  explicit Direct(const std::string& device, bool own_kernels = false)
      : device_(open_device(device)), own_kernels_(own_kernels) {}

  template <class T>
  View put(const std::vector<T>& values, const Shape& shape) {
    GM_CHECK(shape.numel() == static_cast<int64_t>(values.size()), "values do not fit the shape");
    const View view = space({shape, DTypeOf<T>::value});
    device_->upload(view.data, values.data(), values.size() * sizeof(T));
    return view;
  }
  template <class T>
  View put(const std::vector<T>& values) {
    return put(values, Shape{static_cast<int64_t>(values.size())});
  }
  /// Filled with NaN.
  View space(const TensorSpec& spec) {
    buffers_.emplace_back(*device_, spec.bytes());
    device_->fill(buffers_.back().data(), 0xFF, spec.bytes());
    return buffers_.back().view(0, spec);
  }
  template <class T>
  std::vector<T> get(const View& view) const {
    std::vector<T> values(view.numel());
    device_->download(values.data(), view.as<T>(), values.size() * sizeof(T));
    return values;
  }
  /// Seed and step seen by the calls that follow.
  void set_step(uint64_t seed, uint64_t step) {
    const StepState state{seed, step};
    if (!step_.data()) step_ = Buffer(*device_, sizeof state);
    device_->upload(step_.data(), &state, sizeof state);
  }

  /// The calls that follow are cut for a card of so many multiprocessors.
  void set_multiprocessors(int n) { multiprocessors_ = n; }

  void forward(const char* name, const Attrs& attrs, const std::vector<View>& in,
               const std::vector<View>& out, const std::vector<View>& saved = {},
               const std::vector<View>& state = {}) {
    call(name, Pass::forward, attrs, in, out, saved, state, {}, {});
  }
  /// The same by a function that takes the place of the op's.
  void forward_by(const std::function<void(const OpCall&)>& kernel, const char* name, const Attrs& attrs,
                  const std::vector<View>& in, const std::vector<View>& out) {
    call(name, Pass::forward, attrs, in, out, {}, {}, {}, {}, kernel);
  }
  void backward(const char* name, const Attrs& attrs, const std::vector<View>& in,
                const std::vector<View>& saved, const std::vector<View>& dout,
                const std::vector<GradView>& din) {
    call(name, Pass::backward, attrs, in, {}, saved, {}, dout, din);
  }

 private:
  void call(const char* name, Pass pass, const Attrs& attrs, const std::vector<View>& in,
            const std::vector<View>& out, const std::vector<View>& saved, const std::vector<View>& state,
            const std::vector<View>& dout, const std::vector<GradView>& din,
            std::function<void(const OpCall&)> kernel = {}) {
    const OpDef& op = find_op(name);
    Context ctx = device_->context();
    ctx.step = static_cast<const StepState*>(step_.data());
    if (own_kernels_) ctx.libraries = nullptr;
    if (multiprocessors_) ctx.sm_count = multiprocessors_;
    Specs specs;
    for (const View& v : in) specs.push_back(v.spec);
    const size_t bytes = op.workspace ? op.workspace(ctx.backend, pass, attrs, specs) : 0;
    Buffer scratch(*device_, bytes);
    if (bytes) device_->fill(scratch.data(), 0xFF, bytes);
    const View workspace{scratch.data(), {Shape{static_cast<int64_t>(bytes)}, DType::u8}};
    const KernelPair kernels = kernel_table(ctx.backend)[op_index(op)];
    if (!kernel) kernel = pass == Pass::forward ? kernels.forward : kernels.backward;
    kernel(OpCall{attrs, in, out, saved, state, dout, din, workspace, ctx});
    device_->synchronize();
  }

  std::unique_ptr<Device> device_;
  bool own_kernels_;
  int multiprocessors_ = 0;  // 0: the device's own
  std::list<Buffer> buffers_;
  Buffer step_;
};

/// Those of the product backends here that run the CUDA sources, and all of them. See require_cuda.
inline std::vector<std::string> card_backends() {
  std::vector<std::string> names{"simt"};
  if (require_cuda()) names.push_back("cuda");
  return names;
}
inline std::vector<std::string> backends() {
  std::vector<std::string> names = card_backends();
  names.insert(names.begin(), "cpu");
  return names;
}

}  // namespace gm::test
