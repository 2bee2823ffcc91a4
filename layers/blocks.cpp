#include "layers/blocks.h"

#include <algorithm>

#include "kernels/common/ceil_div.h"
#include "kernels/conv2d/conv2d_attrs.h"
#include "kernels/global_pool/global_pool.h"

namespace gm {

namespace {
/// Channels between the two layers of squeeze-and-excitation, which `share` of `channels` asks for.
int64_t squeeze_width(int64_t channels, double share) {
  return std::max<int64_t>(1, static_cast<int64_t>(double(channels) * share));
}
}  // namespace

bool layer_matches(const std::string& prefix, const std::string& name) {
  if (prefix.empty() || !name.starts_with(prefix)) return false;
  auto digit = [](char c) { return c >= '0' && c <= '9'; };
  return name.size() == prefix.size() || !digit(prefix.back()) || !digit(name[prefix.size()]);
}

bool FreezeSpec::holds(const std::string& name) const {
  return std::any_of(layers.begin(), layers.end(),
                     [&](const std::string& prefix) { return layer_matches(prefix, name); });
}

Attrs Blocks::conv_attrs(ValueId x, int kernel, int stride) const {
  const Shape& s = g_.spec(x).shape;
  int pad[2][2];
  for (int axis = 0; axis < 2; ++axis) {
    const int64_t size = s[axis + 1];
    if (a_.same_padding) {
      // TensorFlow SAME: output ceil(size / stride); an odd total puts the extra row or column last.
      const int64_t out = ceil_div(size, stride);
      const int64_t total = std::max<int64_t>(0, (out - 1) * stride + kernel - size);
      pad[axis][0] = static_cast<int>(total / 2);
      pad[axis][1] = static_cast<int>(total - total / 2);
    } else {
      pad[axis][0] = pad[axis][1] = kernel / 2;
    }
  }
  return gm::conv_attrs(kernel, stride, {pad[0][0], pad[1][0], pad[0][1], pad[1][1]});
}

ValueId Blocks::conv(ValueId x, const std::string& name, int64_t filters, int kernel, int stride) {
  return conv(x, name, filters, kernel, stride, Initializer::conv(double(kernel) * kernel * double(filters)));
}

ValueId Blocks::conv(ValueId x, const std::string& name, int64_t filters, int kernel, int stride,
                     const Initializer& init) {
  const TensorSpec& s = g_.spec(x);
  const ValueId w = g_.parameter(name + "/kernel", Shape{filters, kernel, kernel, s.shape.channels()}, init,
                                 s.dtype, true, true);
  return g_.add1("conv2d", conv_attrs(x, kernel, stride), {x, w, kAbsent}, name);
}

ValueId Blocks::depthwise(ValueId x, const std::string& name, int kernel, int stride) {
  const int64_t channels = g_.spec(x).shape.channels();
  const ValueId w = g_.parameter(name + "/kernel", Shape{kernel, kernel, channels},
                                 Initializer::conv(double(kernel) * kernel), g_.spec(x).dtype, true, true);
  return g_.add1("depthwise_conv2d", conv_attrs(x, kernel, stride), {x, w, kAbsent}, name);
}

ValueId Blocks::batch_norm(ValueId x, const std::string& name) {
  return batch_norm(x, name, a_.bn_epsilon, a_.bn_momentum);
}

ValueId Blocks::batch_norm(ValueId x, const std::string& name, double epsilon, double momentum) {
  const Shape c{g_.spec(x).shape.channels()};
  const bool frozen = freeze_.batch_norm || freeze_.holds(name);
  const ValueId gamma = g_.parameter(name + "/gamma", c, {Initializer::ones});
  const ValueId beta = g_.parameter(name + "/beta", c, {Initializer::zeros});
  const ValueId mean = g_.parameter(name + "/moving_mean", c, {Initializer::zeros}, DType::f32, false);
  const ValueId var = g_.parameter(name + "/moving_variance", c, {Initializer::ones}, DType::f32, false);
  const Attrs attrs{{"eps", epsilon},
                    {"momentum", momentum},
                    {"training", training_ && !frozen},
                    {"unbiased", a_.bn_unbiased}};
  return g_.add1("batch_norm", attrs, {x, gamma, beta}, name, {mean, var});
}

ValueId Blocks::activation(ValueId x, Act act, const std::string& name) {
  return act == Act::none ? x : g_.add1("activation", {{"act", act}}, {x}, name);
}

ValueId Blocks::dense(ValueId x, const std::string& name, int64_t units) {
  return dense(x, name, units, Initializer::dense(double(units)));
}

ValueId Blocks::dense(ValueId x, const std::string& name, int64_t units, const Initializer& init, bool bias) {
  return linear(x, name, name, units, init, bias);
}

ValueId Blocks::linear(ValueId x, const std::string& layer, const std::string& node, int64_t units,
                       const Initializer& init, bool bias) {
  const TensorSpec s = g_.spec(x);
  const ValueId w =
      g_.parameter(layer + "/kernel", Shape{units, s.shape.channels()}, init, s.dtype, true, true);
  const ValueId b = bias ? g_.parameter(layer + "/bias", Shape{units}, {Initializer::zeros}) : kAbsent;
  return g_.add1("linear", {}, {x, w, b}, node);
}

ValueId Blocks::dropout(ValueId x, double rate, bool per_sample, const std::string& name, bool in_inference) {
  if (!(training_ || in_inference) || rate <= 0) return x;
  Attrs attrs{{"rate", rate}, {"per_sample", per_sample}, {"stream", streams_++}};
  if (!training_) attrs.set("shared", 1);
  return g_.add1("dropout", attrs, {x}, name);
}

ValueId Blocks::squeeze_excite(ValueId x, const std::string& prefix, int64_t squeeze, bool bias) {
  const int64_t channels = g_.spec(x).shape.channels();
  // In Keras both are 1x1 convolutions, so they start as convolutions do.
  const Initializer reduce = Initializer::conv(double(squeeze)), expand = Initializer::conv(double(channels));
  ValueId s = g_.add1("global_pool", {{"kind", PoolKind::average}}, {x}, prefix + "se_squeeze");
  s = dense(s, prefix + "se_reduce", squeeze, reduce, bias);
  s = activation(s, a_.act, prefix + "se_reduce_act");
  s = activation(dense(s, prefix + "se_expand", channels, expand, bias), Act::sigmoid, prefix + "se_gate");
  return g_.add1("channel_scale", {}, {x, s}, prefix + "se_excite");
}

ValueId Blocks::cbam(ValueId x, const std::string& prefix, const AttentionSpec& spec) {
  const int64_t channels = g_.spec(x).shape.channels(),
                narrow = std::max<int64_t>(1, channels / spec.reduction);
  auto he_normal = [](double fan_in) { return Initializer::conv(fan_in); };
  auto mlp = [&](ValueId pooled, const std::string& branch) {
    ValueId z = linear(pooled, prefix + "mlp_reduce", prefix + branch + "_reduce", narrow,
                       he_normal(double(channels)), spec.bias);
    z = activation(z, Act::relu, prefix + branch + "_relu");
    return linear(z, prefix + "mlp_expand", prefix + branch + "_expand", channels, he_normal(double(narrow)),
                  spec.bias);
  };
  const auto pooled = g_.add("global_avg_max_pool", {}, {x}, prefix + "channel_pool");
  const ValueId sum = g_.add1("add", {}, {mlp(pooled[0], "avg"), mlp(pooled[1], "max")}, prefix + "mlp_sum");
  const ValueId gate = activation(sum, Act::sigmoid, prefix + "channel_gate");
  const ValueId scaled = g_.add1("channel_scale", {}, {x, gate}, prefix + "channel_scale");

  ValueId map = g_.add1("spatial_pool", {{"max_first", spec.authors}}, {scaled}, prefix + "spatial_pool");
  map = conv(map, prefix + "spatial_conv", 1, spec.kernel, 1, he_normal(2. * spec.kernel * spec.kernel));
  if (spec.authors) map = batch_norm(map, prefix + "spatial_bn", 1e-5, 0.99);
  map = activation(map, Act::sigmoid, prefix + "spatial_gate");
  return g_.add1("spatial_scale", {}, {scaled, map}, prefix + "spatial_scale");
}

ValueId Blocks::attention(ValueId x, const AttentionSpec& spec) {
  const int64_t channels = g_.spec(x).shape.channels();
  switch (spec.type) {
    case AttentionType::none:
      break;
    case AttentionType::se:
      return squeeze_excite(x, "top_", std::max<int64_t>(1, channels / spec.reduction), spec.bias);
    case AttentionType::cbam:
      return cbam(x, "cbam_", spec);
  }
  return x;
}

ValueId Blocks::residual(ValueId x, ValueId branch, const std::string& prefix, double drop) {
  branch = dropout(branch, drop, true, prefix + "drop");
  return g_.add1("add", {}, {branch, x}, prefix + "add");
}

ValueId Blocks::mbconv(ValueId x, const std::string& prefix, const StageSpec& s, int stride, double drop) {
  const int64_t in = g_.spec(x).shape.channels();
  ValueId y = x;
  if (s.expand != 1) {
    y = batch_norm(conv(y, prefix + "expand_conv", in * s.expand, 1, 1), prefix + "expand_bn");
    y = activation(y, a_.act, prefix + "expand_activation");
  }
  y = batch_norm(depthwise(y, prefix + "dwconv2", s.kernel, stride), prefix + "bn");
  y = activation(y, a_.act, prefix + "activation");
  if (s.se > 0) y = squeeze_excite(y, prefix, squeeze_width(in, s.se));
  y = batch_norm(conv(y, prefix + "project_conv", s.filters, 1, 1), prefix + "project_bn");
  return s.residual && stride == 1 && in == s.filters ? residual(x, y, prefix, drop) : y;
}

ValueId Blocks::fused_mbconv(ValueId x, const std::string& prefix, const StageSpec& s, int stride,
                             double drop) {
  const int64_t in = g_.spec(x).shape.channels();
  ValueId y = x;
  if (s.expand != 1) {
    y = batch_norm(conv(y, prefix + "expand_conv", in * s.expand, s.kernel, stride), prefix + "expand_bn");
    y = activation(y, a_.act, prefix + "expand_activation");
    if (s.se > 0) y = squeeze_excite(y, prefix, squeeze_width(in, s.se));
    y = batch_norm(conv(y, prefix + "project_conv", s.filters, 1, 1), prefix + "project_bn");
  } else {
    y = batch_norm(conv(y, prefix + "project_conv", s.filters, s.kernel, stride), prefix + "project_bn");
    y = activation(y, a_.act, prefix + "project_activation");
  }
  return s.residual && stride == 1 && in == s.filters ? residual(x, y, prefix, drop) : y;
}

}  // namespace gm
