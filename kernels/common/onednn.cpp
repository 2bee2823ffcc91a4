#include "kernels/common/onednn.h"

#ifndef GM_HAS_ONEDNN
namespace gm::onednn {
namespace {
[[noreturn]] void absent() { fail("built without oneDNN"); }
}  // namespace
bool available() { return false; }
bool native_bf16() { return false; }
size_t packed_bytes(ConvPass, const ConvShape&) { return 0; }
bool shares_layout(ConvPass, const ConvShape&, const ConvShape&) { return false; }
void pack_weights(ConvPass, const ConvShape&, const void*, void*, bool) { absent(); }
void unpack_gradient(const ConvShape&, const float*, float*) { absent(); }
void conv_forward(const ConvShape&, const ConvShape&, const void*, const void*, void*) { absent(); }
void conv_backward_data(const ConvShape&, const ConvShape&, const void*, const void*, void*) { absent(); }
void conv_backward_weights(const ConvShape&, const ConvShape&, const void*, const void*, float*) { absent(); }
}  // namespace gm::onednn
#else

#include <dlfcn.h>

#include <cstdlib>
#include <dnnl.hpp>
#include <memory>
#include <new>
#include <unordered_map>

namespace gm::onednn {

namespace {

using dnnl::memory;

struct Key {
  ConvPass pass;
  ConvShape shape, layout;
  bool operator==(const Key&) const = default;
};
struct KeyHash {
  size_t operator()(const Key& key) const {
    uint64_t h = 1469598103934665603ull;  // FNV-1a over the numbers (the struct has padding bytes)
    auto mix = [&](int64_t v) { h = (h ^ static_cast<uint64_t>(v)) * 1099511628211ull; };
    mix(static_cast<int64_t>(key.pass));
    for (const ConvShape* s : {&key.shape, &key.layout})
      for (int64_t v : {s->n, s->h, s->w, s->c, s->k, s->r, s->s, s->oh, s->ow, s->stride, s->pad_top,
                        s->pad_left, static_cast<int64_t>(s->dtype)})
        mix(v);
    return static_cast<size_t>(h ^ (h >> 32));
  }
};

// A primitive with its argument objects, whose data pointers are set before each execution.
struct Conv {
  dnnl::primitive primitive;
  memory::desc weights;  // layout the primitive wants
  memory source, filter, destination, scratchpad;
  size_t scratch_bytes = 0;
  bool usable = false;
};

struct ThreadState {
  dnnl::engine engine;
  dnnl::stream stream;
  std::unordered_map<Key, std::unique_ptr<Conv>, KeyHash> convs;
  void* scratch[2] = {nullptr, nullptr};  // 0: scratchpad of a primitive, 1: weights in another layout
  size_t scratch_size[2] = {0, 0};

  ThreadState() {
    // The library's OpenMP team would fight the engine's pool for the same cores. The setting belongs to the
    // calling thread, and primitives remember the number of threads they were created for.
    if (auto set = reinterpret_cast<void (*)(int)>(dlsym(RTLD_DEFAULT, "omp_set_num_threads"))) set(1);
    engine = dnnl::engine(dnnl::engine::kind::cpu, 0);
    stream = dnnl::stream(engine);
  }
  ~ThreadState() {
    for (void* s : scratch) ::operator delete(s, std::align_val_t(64));
  }
  void* buffer(int slot, size_t bytes) {
    if (scratch_size[slot] < bytes) {
      ::operator delete(scratch[slot], std::align_val_t(64));
      scratch[slot] = nullptr;
      scratch_size[slot] = 0;
      scratch[slot] = ::operator new(bytes, std::align_val_t(64));
      scratch_size[slot] = bytes;
    }
    return scratch[slot];
  }
};
ThreadState& state() {
  static thread_local ThreadState s;
  return s;
}

memory::data_type type_of(DType t) {
  return t == DType::bf16 ? memory::data_type::bf16 : memory::data_type::f32;
}
memory::desc source_desc(const ConvShape& s) {
  return {{s.n, s.c, s.h, s.w}, type_of(s.dtype), memory::format_tag::nhwc};
}
memory::desc destination_desc(const ConvShape& s) {
  return {{s.n, s.k, s.oh, s.ow}, type_of(s.dtype), memory::format_tag::nhwc};
}
memory::desc plain_weights(const ConvShape& s, DType t) {
  return {{s.k, s.c, s.r, s.s}, type_of(t), memory::format_tag::ohwi};
}

dnnl::primitive_attr attributes() {
  dnnl::primitive_attr a;
  a.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  return a;
}

// The library's reference loops are slower than our own kernels: treated as "no kernel".
template <class Descriptor>
bool optimised(const Descriptor& pd) {
  const std::string name = pd.impl_info_str();
  return name.rfind("ref", 0) != 0 && name.rfind("simple", 0) != 0 && name.rfind("gemm:ref", 0) != 0;
}

template <class Primitive, class Descriptor>
void finish(Conv& conv, const Descriptor& pd, const memory::desc& weights) {
  if (!optimised(pd)) return;
  conv.primitive = Primitive(pd);
  conv.weights = weights;
  conv.scratch_bytes = pd.scratchpad_desc().get_size();
  conv.scratchpad = memory(pd.scratchpad_desc(), state().engine, nullptr);
  conv.usable = true;
}

void create(Conv& conv, ConvPass pass, const ConvShape& s, const memory::desc& weights) {
  const memory::desc x = source_desc(s), y = destination_desc(s);
  const memory::dims strides{s.stride, s.stride}, low{s.pad_top, s.pad_left},
      high{(s.oh - 1) * s.stride + s.r - s.h - s.pad_top, (s.ow - 1) * s.stride + s.s - s.w - s.pad_left};
  const auto algorithm = dnnl::algorithm::convolution_direct;
  const auto training = dnnl::prop_kind::forward_training;
  const dnnl::primitive_attr attr = attributes();
  const dnnl::engine& engine = state().engine;
  using Forward = dnnl::convolution_forward;
  using Data = dnnl::convolution_backward_data;
  using Weights = dnnl::convolution_backward_weights;
  // Backward descriptors take a forward one as a hint; its weights have the dtype of the activations.
  const memory::desc any{{s.k, s.c, s.r, s.s}, type_of(s.dtype), memory::format_tag::any};
#if DNNL_VERSION_MAJOR >= 3
  auto forward = [&](const memory::desc& w) {
    return Forward::primitive_desc(engine, training, algorithm, x, w, y, strides, low, high, attr);
  };
  if (pass == ConvPass::forward) {
    const auto pd = forward(weights);
    finish<Forward>(conv, pd, pd.weights_desc());
  } else if (pass == ConvPass::backward_data) {
    const Data::primitive_desc pd(engine, algorithm, x, weights, y, strides, low, high, forward(any), attr);
    finish<Data>(conv, pd, pd.weights_desc());
  } else {
    const Weights::primitive_desc pd(engine, algorithm, x, weights, y, strides, low, high, forward(any),
                                     attr);
    finish<Weights>(conv, pd, pd.diff_weights_desc());
  }
#else
  auto forward = [&](const memory::desc& w) {
    return Forward::primitive_desc({training, algorithm, x, w, y, strides, low, high}, attr, engine);
  };
  if (pass == ConvPass::forward) {
    const auto pd = forward(weights);
    finish<Forward>(conv, pd, pd.weights_desc());
  } else if (pass == ConvPass::backward_data) {
    const Data::primitive_desc pd({algorithm, x, weights, y, strides, low, high}, attr, engine, forward(any));
    finish<Data>(conv, pd, pd.weights_desc());
  } else {
    const Weights::primitive_desc pd({algorithm, x, weights, y, strides, low, high}, attr, engine,
                                     forward(any));
    finish<Weights>(conv, pd, pd.diff_weights_desc());
  }
#endif
  if (!conv.usable) return;
  const bool gradient = pass == ConvPass::backward_data;
  conv.source = memory(gradient ? y : x, engine, nullptr);
  conv.destination = memory(gradient ? x : y, engine, nullptr);
  conv.filter = memory(conv.weights, engine, nullptr);
}

Conv& find(ConvPass pass, const ConvShape& shape, const ConvShape& layout) {
  ThreadState& t = state();
  const Key key{pass, shape, layout};
  if (auto it = t.convs.find(key); it != t.convs.end()) return *it->second;
  if (t.convs.size() > 4096) t.convs.clear();  // a server fed with ever new batch sizes
  auto conv = std::make_unique<Conv>();
  const DType weights_type = pass == ConvPass::backward_weights ? DType::f32 : shape.dtype;
  const memory::desc any{
      {shape.k, shape.c, shape.r, shape.s}, type_of(weights_type), memory::format_tag::any};
  auto attempt = [&](const memory::desc& weights) {
    try {
      create(*conv, pass, shape, weights);
    } catch (const dnnl::error& e) {
      if (e.status != dnnl_unimplemented) fail(std::string("oneDNN convolution: ") + e.what());
    }
  };
  // First the layout the weights are packed in; a shape that cannot use it converts on the fly.
  if (!(shape == layout)) {
    const Conv& base = find(pass, layout, layout);
    if (base.usable) attempt(base.weights);
  }
  if (!conv->usable) attempt(any);
  return *t.convs.emplace(key, std::move(conv)).first->second;
}

void reorder(const memory::desc& from, const void* source, const memory::desc& to, void* destination) {
  ThreadState& t = state();
  memory a(from, t.engine, const_cast<void*>(source)), b(to, t.engine, destination);
  dnnl::reorder(a, b).execute(t.stream, a, b);
  t.stream.wait();
}

void execute(ConvPass pass, const ConvShape& shape, const ConvShape& layout, const void* source,
             const void* packed, const void* destination) {
  ThreadState& t = state();
  Conv& conv = find(pass, shape, layout);
  GM_CHECK(conv.usable, "oneDNN has no kernel for this chunk of a convolution");
  const memory::desc& packed_desc = shape == layout ? conv.weights : find(pass, layout, layout).weights;
  const bool convert = !(packed_desc == conv.weights);
  void* filter = const_cast<void*>(packed);
  if (convert) {
    filter = t.buffer(1, conv.weights.get_size());
    if (pass != ConvPass::backward_weights) reorder(packed_desc, packed, conv.weights, filter);
  }
  conv.source.set_data_handle(const_cast<void*>(source));
  conv.destination.set_data_handle(const_cast<void*>(destination));
  conv.filter.set_data_handle(filter);
  conv.scratchpad.set_data_handle(t.buffer(0, conv.scratch_bytes));
  const bool data = pass == ConvPass::backward_data, gradient = pass == ConvPass::backward_weights;
  conv.primitive.execute(t.stream, {{data ? DNNL_ARG_DIFF_DST : DNNL_ARG_SRC, conv.source},
                                    {gradient ? DNNL_ARG_DIFF_WEIGHTS : DNNL_ARG_WEIGHTS, conv.filter},
                                    {data       ? DNNL_ARG_DIFF_SRC
                                     : gradient ? DNNL_ARG_DIFF_DST
                                                : DNNL_ARG_DST,
                                     conv.destination},
                                    {DNNL_ARG_SCRATCHPAD, conv.scratchpad}});
  t.stream.wait();
  if (convert && gradient) reorder(conv.weights, filter, packed_desc, const_cast<void*>(packed));
}

}  // namespace

bool available() {
  static const bool on = [] {
    const char* wish = std::getenv("GM_ONEDNN");
    return !(wish && std::string(wish) == "0");
  }();
  return on;
}

bool native_bf16() {
  static const bool native = [] {
    const unsigned have = static_cast<unsigned>(dnnl::get_effective_cpu_isa()),
                   need = static_cast<unsigned>(dnnl::cpu_isa::avx512_core_bf16);
    return (have & need) == need;
  }();
  return native;
}

size_t packed_bytes(ConvPass pass, const ConvShape& shape) {
  const Conv& conv = find(pass, shape, shape);
  return conv.usable ? conv.weights.get_size() : 0;
}

bool shares_layout(ConvPass pass, const ConvShape& shape, const ConvShape& layout) {
  const Conv &conv = find(pass, shape, layout), &base = find(pass, layout, layout);
  return conv.usable && base.usable && conv.weights == base.weights;
}

void pack_weights(ConvPass pass, const ConvShape& shape, const void* w, void* packed, bool turned) {
  const Conv& conv = find(pass, shape, shape);
  GM_CHECK(conv.usable && pass != ConvPass::backward_weights, "nothing to pack for");
  GM_CHECK(!turned || (shape.r == 1 && shape.s == 1), "only 1x1 filters can be turned");
  const memory::desc plain =
      turned ? memory::desc({shape.k, shape.c, 1, 1}, type_of(shape.dtype), memory::dims{1, shape.k, 1, 1})
             : plain_weights(shape, shape.dtype);
  reorder(plain, w, conv.weights, packed);
}

void unpack_gradient(const ConvShape& shape, const float* packed, float* dw) {
  const Conv& conv = find(ConvPass::backward_weights, shape, shape);
  GM_CHECK(conv.usable, "no gradient to unpack");
  reorder(conv.weights, packed, plain_weights(shape, DType::f32), dw);
}

void conv_forward(const ConvShape& shape, const ConvShape& layout, const void* x, const void* packed,
                  void* y) {
  execute(ConvPass::forward, shape, layout, x, packed, y);
}
void conv_backward_data(const ConvShape& shape, const ConvShape& layout, const void* dy, const void* packed,
                        void* dx) {
  execute(ConvPass::backward_data, shape, layout, dy, packed, dx);
}
void conv_backward_weights(const ConvShape& shape, const ConvShape& layout, const void* x, const void* dy,
                           float* packed_dw) {
  execute(ConvPass::backward_weights, shape, layout, x, packed_dw, dy);
}

}  // namespace gm::onednn
#endif
