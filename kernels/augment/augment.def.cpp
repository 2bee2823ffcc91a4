#include "kernels/augment/augment.h"

#include <algorithm>
#include <cmath>

#include "kernels/augment/augment_gpu.h"
#include "kernels/common/op.h"
#include "kernels/common/op_checks.h"

namespace gm {

AugmentSample place_sample(int width, int height, const Affine& affine, double ratio_x, double ratio_y,
                           Border border, int size) {
  const bool turned = affine.xy != 0 || affine.yx != 0;
  const auto whole_step = [turned](double ratio, double start) {
    if (ratio <= kMaxTaps) return 1;
    const auto half = static_cast<int32_t>(ratio / 2);
    const auto near_whole = [](double v) { return std::abs(v - std::round(v)) < 1e-6; };
    if (turned || !near_whole(ratio) || !near_whole(start)) return half;
    // Of 5, 7, 9 ...: the least that divides it, so that the mean is of whole window pixels.
    const auto whole = static_cast<int32_t>(std::round(ratio));
    for (int32_t step = half; step <= whole; ++step)
      if (whole % step == 0) return step;
    return half;
  };
  const auto taps_for = [](double ratio) {
    return std::clamp(static_cast<int32_t>(std::ceil(ratio - 1e-6)), 1, kMaxTaps);
  };
  AugmentSample s;
  s.width = width;
  s.height = height;
  s.border = border;
  s.step_x = whole_step(ratio_x, affine.x0);
  s.step_y = whole_step(ratio_y, affine.y0);
  const double x1 = affine.x0 + std::min(0.0, affine.xx * size) + std::min(0.0, affine.xy * size);
  const double x2 = affine.x0 + std::max(0.0, affine.xx * size) + std::max(0.0, affine.xy * size);
  const double y1 = affine.y0 + std::min(0.0, affine.yx * size) + std::min(0.0, affine.yy * size);
  const double y2 = affine.y0 + std::max(0.0, affine.yx * size) + std::max(0.0, affine.yy * size);
  // A pixel of margin all round: bilinear taps reach half a pixel out, and positions stay positive, so that
  // truncation is floor.
  s.window_x = static_cast<int32_t>(std::floor(x1 + 1e-6)) - s.step_x;
  s.window_y = static_cast<int32_t>(std::floor(y1 + 1e-6)) - s.step_y;
  s.window_width = static_cast<int32_t>(std::ceil((x2 - s.window_x) / s.step_x)) + 2;
  s.window_height = static_cast<int32_t>(std::ceil((y2 - s.window_y) / s.step_y)) + 2;
  const double sx = 1.0 / s.step_x, sy = 1.0 / s.step_y;
  s.to_window = {affine.xx * sx, affine.xy * sx, (affine.x0 - s.window_x) * sx - 0.5,
                 affine.yx * sy, affine.yy * sy, (affine.y0 - s.window_y) * sy - 0.5};
  s.taps_x = taps_for(ratio_x * sx);
  s.taps_y = taps_for(ratio_y * sy);
  return s;
}

namespace {

Specs infer(const Attrs& attrs, std::span<const TensorSpec> in) {
  GM_CHECK(in[0].dtype == DType::u8 && in[0].shape.rank == 1,
           "augment: images are u8 bytes, not " + in[0].str());
  GM_CHECK(in[1].dtype == DType::u8 && in[1].shape.rank == 2 &&
               in[1].shape[1] == static_cast<int64_t>(sizeof(AugmentSample)),
           "augment: samples are u8 (N, " + std::to_string(sizeof(AugmentSample)) + "), not " + in[1].str());
  const int64_t size = attrs.geti("size");
  GM_CHECK(size >= 1 && size <= 4096, "augment: size " + std::to_string(size) + " is not in 1..4096");
  for (int c = 0; c < 3; ++c) check_positive("augment", attrs, "std" + std::to_string(c));
  return {{{in[1].shape[0], size, size, 3}, attrs.geti("bf16", 0) ? DType::bf16 : DType::f32}};
}

/// A batch for one test case: images of the given sides side by side, each under a geometry of its own.
struct CaseImage {
  int width, height;
  double angle, ratio;  // radians; source pixels per output pixel
  Border border = Border::reflect;
  bool recolour = true;
  int shift = 0;  // source pixels that the window lies off the centre
};
OpCase make_case(Attrs attrs, const std::vector<CaseImage>& images) {
  const int size = attrs.geti("size");
  std::vector<AugmentSample> samples;
  int64_t bytes = 0;
  for (const CaseImage& i : images) {
    const double c = i.ratio * std::cos(i.angle), s = i.ratio * std::sin(i.angle), half = size * 0.5;
    Affine a{c, s, i.width * 0.5 + i.shift - (c + s) * half, -s, c, i.height * 0.5 - (c - s) * half};
    AugmentSample sample = place_sample(i.width, i.height, a, i.ratio, i.ratio, i.border, size);
    sample.offset = bytes;
    if (i.recolour && attrs.geti("colour", 1)) {
      const float m[9] = {1.1f, -0.06f, 0.03f, -0.02f, 0.9f, 0.05f, 0.04f, 0.01f, 1.02f};
      std::copy(m, m + 9, sample.colour);
      sample.grey_share = 0.15;
      sample.recolour = 1;
    }
    samples.push_back(sample);
    bytes += int64_t{i.width} * i.height * 3;
  }
  const auto* raw = reinterpret_cast<const uint8_t*>(samples.data());
  const int64_t n = static_cast<int64_t>(samples.size()), record = sizeof(AugmentSample);
  OpCase k{.attrs = attrs,
           .in = {{{{bytes}, DType::u8}, Fill::pixels}, {{{n, record}, DType::u8}, Fill::given}}};
  k.in[1].given.assign(raw, raw + n * record);
  if (attrs.geti("bf16", 0))
    k.tolerance = 8e-3, k.why = "the output is rounded to bf16";
  else
    k.tolerance = 1e-4, k.why = "f32 positions: 2^-16 px at 256 px, times differences of up to 255 in noise";
  return k;
}

std::vector<OpCase> cases() {
  const Attrs scaling{{"mean0", 123.675}, {"mean1", 116.28}, {"mean2", 103.53},
                      {"std0", 58.395},   {"std1", 57.12},   {"std2", 57.375}};
  std::vector<OpCase> list;
  for (int half : {0, 1})
    for (int colour : {0, 1}) {
      auto with = [&](int size) {
        Attrs a = scaling;
        return a.set("size", size).set("colour", colour).set("bf16", half);
      };
      list.push_back(make_case(with(1), {{2, 2, 0.3, 1.5}}));
      list.push_back(make_case(with(17), {{23, 31, 0.4, 0.7, Border::edge},
                                          {40, 29, 2.1, 2.4, Border::zero},
                                          {9, 50, -1.2, 3.9, Border::reflect, false}}));
      list.push_back(make_case(with(33), {{64, 64, 5.0, 1.9}, {150, 140, 0.2, 4.6}, {37, 41, 0.0, 1.0}}));
      list.push_back(make_case(with(8), {{140, 99, 0.9, 13.7, Border::reflect, true, 20}}));
      std::vector<CaseImage> batch;
      for (int i = 0; i < 32; ++i) batch.push_back({264, 264, 0.2 * i, 160.0 / 96 + i * 0.026});
      list.push_back(make_case(with(96), batch));
      list.back().large = true;
    }
  // Whole pixels, quarter turns and mirrored borders: nothing is rounded.
  for (int quarter = 0; quarter < 4; ++quarter) {
    const double c[] = {1, 0, -1, 0}, s[] = {0, 1, 0, -1};
    OpCase k = make_case({{"size", 9}, {"colour", 0}}, {{9, 9, 0, 1}});
    const Affine turn{c[quarter],  s[quarter], 4.5 - 4.5 * (c[quarter] + s[quarter]) + 3,
                      -s[quarter], c[quarter], 4.5 - 4.5 * (c[quarter] - s[quarter]) - 2};
    const AugmentSample sample = place_sample(9, 9, turn, 1, 1, static_cast<Border>(quarter % 3), 9);
    const auto* raw = reinterpret_cast<const uint8_t*>(&sample);
    k.in[1].given.assign(raw, raw + sizeof sample);
    k.exact = true;
    k.tolerance = 0;
    list.push_back(k);
  }
  return list;
}

}  // namespace

const OpDef& augment_def() {
  static const OpDef def{
      .name = "augment",
      .summary = "8-bit images -> affine sample, colour, input scaling: the network's input",
      .infer = infer,
      .workspace =
          [](Backend backend, Pass, const Attrs& attrs, std::span<const TensorSpec> in) {
            return backend == Backend::cuda || backend == Backend::simt
                       ? augment_workspace(attrs, in[1].shape[0])
                       : size_t{0};
          },
      .cost =
          [](Pass, const Attrs& attrs, std::span<const TensorSpec> in) {
            const TensorSpec out = infer(attrs, in)[0];
            // The pixels between sampling and colour are written and read once more.
            const double between = attrs.geti("colour", 1) ? 8.0 * double(out.shape.numel()) : 0;
            return Cost{double(in[0].bytes() + in[1].bytes() + out.bytes()) + between,
                        double(out.shape.numel()) * 4 * 8};
          },
      .cases = cases,
  };
  return def;
}

}  // namespace gm
