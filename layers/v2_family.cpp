#include "layers/v2_family.h"

namespace gm {

namespace {

StageSpec fused(int expand, int stride, int filters, int layers) {
  return {BlockType::fused_mbconv, expand, 3, stride, filters, layers, 0};
}
StageSpec mbconv(int expand, int stride, int filters, int layers) {
  return {BlockType::mbconv, expand, 3, stride, filters, layers, 0.25};
}

std::vector<V2Member> make_family() {
  const std::vector<StageSpec> b{fused(1, 1, 16, 1),  fused(4, 2, 32, 2),   fused(4, 2, 48, 2),
                                 mbconv(4, 2, 96, 3), mbconv(6, 1, 112, 5), mbconv(6, 2, 192, 8)},
      s{fused(1, 1, 24, 2),   fused(4, 2, 48, 4),   fused(4, 2, 64, 4),
        mbconv(4, 2, 128, 6), mbconv(6, 1, 160, 9), mbconv(6, 2, 256, 15)},
      m{fused(1, 1, 24, 3),    fused(4, 2, 48, 5),    fused(4, 2, 80, 5),  mbconv(4, 2, 160, 7),
        mbconv(6, 1, 176, 14), mbconv(6, 2, 304, 18), mbconv(6, 1, 512, 5)},
      l{fused(1, 1, 32, 4),    fused(4, 2, 64, 7),    fused(4, 2, 96, 7),  mbconv(4, 2, 192, 10),
        mbconv(6, 1, 224, 19), mbconv(6, 2, 384, 25), mbconv(6, 1, 640, 7)};
  // ImageNet's mean and deviation, and x / 128 - 1.
  const std::vector<double> mean{123.675, 116.28, 103.53}, std{58.395, 57.12, 57.375}, one{128, 128, 128};
  return {
      {"EfficientNetV2-B0", 1.0, 1.0, 224, 32, 1280, b, mean, std},
      {"EfficientNetV2-B1", 1.0, 1.1, 240, 32, 1280, b, mean, std},
      {"EfficientNetV2-B2", 1.1, 1.2, 260, 32, 1280, b, mean, std},
      {"EfficientNetV2-B3", 1.2, 1.4, 300, 32, 1280, b, mean, std},
      {"EfficientNetV2-S", 1.0, 1.0, 384, 24, 1280, s, one, one},
      {"EfficientNetV2-M", 1.0, 1.0, 480, 24, 1280, m, one, one},
      {"EfficientNetV2-L", 1.0, 1.0, 480, 32, 1280, l, one, one},
  };
}

}  // namespace

const std::vector<V2Member>& v2_family() {
  static const std::vector<V2Member> family = make_family();
  return family;
}

Architecture v2_backbone(const V2Member& member) {
  // Unlike the first EfficientNet's rule, this one may fall below 90 % of the asked width.
  auto filters = [&](int n) { return round_filters(n * member.width, false); };
  Architecture a;
  a.stem_filters = filters(member.stem);
  a.head_filters = filters(member.head);
  a.stages = member.stages;
  for (StageSpec& s : a.stages) {
    s.filters = filters(s.filters);
    s.layers = round_layers(s.layers * member.depth);
  }
  return a;
}

std::string v2_member_of(const Architecture& a) {
  for (const V2Member& member : v2_family()) {
    const Architecture b = v2_backbone(member);
    if (a.stem_kernel == 3 && a.stem_stride == 2 && a.act == Act::silu && a.stem_filters == b.stem_filters &&
        a.head_filters == b.head_filters && a.stages == b.stages)
      return member.name;
  }
  return "";
}

}  // namespace gm
