// What the lanes of a warp do together: exchanges, votes, matrices.
#include <cstring>

#include "kernels/common/dtype.h"
#include "tests/emulated_card/ptx_lanes.h"

namespace gm::emulated {

namespace {

using Parts = std::vector<std::string_view>;

// to[0] | to[1] = from[0] of another lane; from[1]: which, from[2]: clamp and segments.
void shuffle(const Instruction& in, Warp& w, uint32_t mask) {
  uint32_t* const to = slots<uint32_t>(w, in.to[0]);
  const uint32_t *a = slots<uint32_t>(w, in.from[0]), *b = slots<uint32_t>(w, in.from[1]),
                 *c = slots<uint32_t>(w, in.from[2]);
  uint32_t values[kLanes];
  std::memcpy(values, a, sizeof values);
  uint32_t result[kLanes];
  for_lanes(mask, [&](unsigned lane) {
    const unsigned clamp = c[lane] & 31, segments = c[lane] >> 8 & 31, by = b[lane] & 31;
    const unsigned most = (lane & segments) | (clamp & ~segments), least = lane & segments;
    unsigned source = 0;
    bool inside = false;
    switch (in.variant) {
      case 0:
        source = lane - by;
        inside = static_cast<int>(source) >= static_cast<int>(most);
        break;  // up
      case 1:
        source = lane + by;
        inside = source <= most;
        break;  // down
      case 2:
        source = lane ^ by;
        inside = source <= most;
        break;  // bfly
      default:
        source = least | (by & ~segments);
        inside = source <= most;  // idx
    }
    if (!inside) source = lane;
    if (!(mask >> source & 1))
      throw Fault("shfl.sync from a lane that takes no part", static_cast<int>(lane));
    result[lane] = values[source];
    set_predicate(w, in.to[1], lane, inside);
  });
  for_lanes(mask, [&](unsigned lane) { to[lane] = result[lane]; });
}

// Lane l gives the address of row l % 8 of matrix l / 8 and gets two elements of each.
void load_matrices(const Instruction& in, Warp& w, uint32_t) {
  const int matrices = in.elements;
  const unsigned char* rows[kLanes] = {};
  for (int lane = 0; lane < 8 * matrices; ++lane) {
    const size_t at = static_cast<size_t>(in.address) * kLanes + static_cast<size_t>(lane);
    const uint64_t base = in.address_wide ? w.wides[at] : w.words[at];
    rows[lane] = access(w, lane, Space::shared, base + static_cast<uint64_t>(in.offset), 16, Use::read);
  }
  for (int m = 0; m < matrices; ++m)
    for (unsigned lane = 0; lane < kLanes; ++lane) {
      uint16_t two[2];
      for (unsigned e = 0; e < 2; ++e) {
        const unsigned row = in.variant ? lane % 4 * 2 + e : lane / 4,
                       column = in.variant ? lane / 4 : lane % 4 * 2 + e;
        std::memcpy(&two[e], rows[8 * m + static_cast<int>(row)] + 2 * column, 2);
      }
      slots<uint32_t>(w, in.to[m])[lane] = two[0] | static_cast<uint32_t>(two[1]) << 16;
    }
}

float bf16_half(uint32_t pair, unsigned half) {
  return to_float(bf16{static_cast<uint16_t>(half ? pair >> 16 : pair)});
}

// mma.m16n8k16: from[0..3] A by rows, from[4..5] B by columns, from[6..9] C.
void multiply_matrices(const Instruction& in, Warp& w, uint32_t) {
  float a[16][16], b[16][8];
  for (unsigned lane = 0; lane < kLanes; ++lane) {
    const unsigned group = lane / 4, inside = lane % 4 * 2;
    for (unsigned half = 0; half < 2; ++half) {
      for (unsigned r = 0; r < 4; ++r)
        a[group + (r & 1) * 8][inside + half + (r >> 1) * 8] =
            bf16_half(slots<uint32_t>(w, in.from[r])[lane], half);
      for (unsigned r = 0; r < 2; ++r)
        b[inside + half + r * 8][group] = bf16_half(slots<uint32_t>(w, in.from[4 + r])[lane], half);
    }
  }
  float sums[16][8];
  for (int i = 0; i < 16; ++i)
    for (int j = 0; j < 8; ++j) {
      double sum = 0;
      for (int k = 0; k < 16; ++k) sum += static_cast<double>(a[i][k]) * b[k][j];
      sums[i][j] = static_cast<float>(sum);
    }
  for (unsigned lane = 0; lane < kLanes; ++lane)
    for (unsigned r = 0; r < 4; ++r) {
      const float c = std::bit_cast<float>(slots<uint32_t>(w, in.from[6 + r])[lane]);
      slots<uint32_t>(w, in.to[r])[lane] =
          std::bit_cast<uint32_t>(c + sums[lane / 4 + (r >> 1) * 8][lane % 4 * 2 + (r & 1)]);
    }
}

}  // namespace

Execute find_together(const Parts& parts, Instruction& in) {
  const std::string_view op = parts[0];
  const auto together = [&in](Execute e) {
    in.kind = Kind::together;
    return e;
  };
  if (op == "shfl") {
    in.variant = parts[2] == "up" ? 0 : parts[2] == "down" ? 1 : parts[2] == "bfly" ? 2 : 3;
    return together(&shuffle);
  }
  if (op == "bar" && has(parts, "warp")) return together([](const Instruction&, Warp&, uint32_t) {});
  if (op == "ldmatrix") {
    in.variant = has(parts, "trans");
    in.elements = has(parts, "x4") ? 4 : has(parts, "x2") ? 2 : 1;
    return together(&load_matrices);
  }
  if (op == "mma") {
    const bool known = has(parts, "m16n8k16") && parts[parts.size() - 3] == "bf16" && parts.back() == "f32";
    return known ? together(&multiply_matrices) : nullptr;
  }
  return nullptr;
}

}  // namespace gm::emulated
