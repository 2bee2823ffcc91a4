// Arithmetic, comparisons and conversions.
#include <cfenv>
#include <cmath>
#include <limits>

#include "kernels/common/dtype.h"
#include "tests/emulated_card/ptx_lanes.h"

namespace gm::emulated {

namespace {

using Parts = std::vector<std::string_view>;

template <class T>
constexpr bool kFloating = std::is_floating_point_v<T>;
template <class T>
using Unsigned = std::make_unsigned_t<std::conditional_t<kFloating<T>, int, T>>;
// Twice as wide, of the same sign.
template <class T>
using Wider = std::conditional_t<std::is_signed_v<T>, std::conditional_t<sizeof(T) == 2, int32_t, int64_t>,
                                 std::conditional_t<sizeof(T) == 2, uint32_t, uint64_t>>;

template <class T>
T wrap(Unsigned<T> v) {
  return static_cast<T>(v);
}
template <class T>
T high(T a, T b) {
  if constexpr (sizeof(T) == 8)
    return static_cast<T>(
        static_cast<std::conditional_t<std::is_signed_v<T>, __int128, unsigned __int128>>(a) * b >> 64);
  else
    return static_cast<T>(static_cast<Wider<T>>(a) * b >> (8 * sizeof(T)));
}

float saturate(float v) { return v > 0 ? (v < 1 ? v : 1.f) : 0.f; }  // NaN gives 0

// fma.rm: rounded towards minus infinity.
#pragma GCC push_options
#pragma GCC optimize("rounding-math")
void fma_down(const Instruction& in, Warp& w, uint32_t mask) {
  uint32_t* const to = slots<float>(w, in.to[0]);
  const uint32_t *a = slots<float>(w, in.from[0]), *b = slots<float>(w, in.from[1]),
                 *c = slots<float>(w, in.from[2]);
  std::fesetround(FE_DOWNWARD);
  for_lanes(mask, [&](unsigned i) {
    volatile float x = std::bit_cast<float>(a[i]), y = std::bit_cast<float>(b[i]),
                   z = std::bit_cast<float>(c[i]);
    volatile float sum = std::fma(x, y, z);
    to[i] = std::bit_cast<uint32_t>(static_cast<float>(sum));
  });
  std::fesetround(FE_TONEAREST);
}
#pragma GCC pop_options

Execute find_sum(const Parts& parts) {
  const std::string_view op = parts[0];
  return for_type(parts.back(), [op, &parts]<class T>(T) -> Execute {
    if constexpr (kFloating<T>) {
      if (has(parts, "sat") || has(parts, "rm") || has(parts, "rp") || has(parts, "rz")) return nullptr;
      if (op == "add") return each<T, T, T>([](T a, T b) { return a + b; });
      if (op == "sub") return each<T, T, T>([](T a, T b) { return a - b; });
      if (op == "mul") return each<T, T, T>([](T a, T b) { return a * b; });
      if (op == "div") return each<T, T, T>([](T a, T b) { return a / b; });
      if (op == "min") return each<T, T, T>([](T a, T b) { return std::fmin(a, b); });
      if (op == "max") return each<T, T, T>([](T a, T b) { return std::fmax(a, b); });
      if (op == "fma" || op == "mad")
        return each<T, T, T, T>([](T a, T b, T c) { return std::fma(a, b, c); });
      if (op == "neg") return each<T, T>([](T a) { return -a; });
      if (op == "abs") return each<T, T>([](T a) { return std::fabs(a); });
      if (op == "rcp") return each<T, T>([](T a) { return 1 / a; });
      if (op == "sqrt") return each<T, T>([](T a) { return std::sqrt(a); });
      if (op == "copysign") return each<T, T, T>([](T sign, T size) { return std::copysign(size, sign); });
      if (op == "ex2") return each<T, T>([](T a) { return std::exp2(a); });
      return nullptr;
    } else {
      using U = Unsigned<T>;
      if (has(parts, "sat") || has(parts, "cc")) return nullptr;
      if (op == "add")
        return each<T, T, T>([](T a, T b) { return wrap<T>(static_cast<U>(a) + static_cast<U>(b)); });
      if (op == "sub")
        return each<T, T, T>([](T a, T b) { return wrap<T>(static_cast<U>(a) - static_cast<U>(b)); });
      if (op == "min") return each<T, T, T>([](T a, T b) { return a < b ? a : b; });
      if (op == "max") return each<T, T, T>([](T a, T b) { return a < b ? b : a; });
      if (op == "neg") return each<T, T>([](T a) { return wrap<T>(U{0} - static_cast<U>(a)); });
      if (op == "abs") return each<T, T>([](T a) { return a < 0 ? wrap<T>(U{0} - static_cast<U>(a)) : a; });
      if (op == "not") return each<T, T>([](T a) { return static_cast<T>(~a); });
      if (op == "and") return each<T, T, T>([](T a, T b) { return static_cast<T>(a & b); });
      if (op == "or") return each<T, T, T>([](T a, T b) { return static_cast<T>(a | b); });
      if (op == "xor") return each<T, T, T>([](T a, T b) { return static_cast<T>(a ^ b); });
      constexpr uint32_t kBits = 8 * sizeof(T);
      if (op == "shl")
        return each<T, T, uint32_t>(
            [](T a, uint32_t n) { return n < kBits ? wrap<T>(static_cast<U>(a) << n) : T{0}; });
      if (op == "shr")
        return each<T, T, uint32_t>([](T a, uint32_t n) {
          if (n < kBits) return static_cast<T>(a >> n);
          return static_cast<T>(a < 0 ? -1 : 0);
        });
      // What a division by zero gives is not defined; the least that could do is all ones.
      if (op == "div")
        return each<T, T, T>([](T a, T b) {
          if (b == 0) return static_cast<T>(~T{0});
          if (std::is_signed_v<T> && b == static_cast<T>(-1)) return wrap<T>(U{0} - static_cast<U>(a));
          return static_cast<T>(a / b);
        });
      if (op == "rem")
        return each<T, T, T>([](T a, T b) {
          if (b == 0 || (std::is_signed_v<T> && b == static_cast<T>(-1))) return b == 0 ? a : T{0};
          return static_cast<T>(a % b);
        });
      if constexpr (sizeof(T) >= 2) {
        if (op == "mul" || op == "mad") {
          const bool adds = op == "mad";
          if (has(parts, "lo")) {
            using W = std::conditional_t<sizeof(U) < 4, uint32_t, U>;
            if (adds)
              return each<T, T, T, T>([](T a, T b, T c) {
                return static_cast<T>(static_cast<W>(static_cast<U>(a)) * static_cast<W>(static_cast<U>(b)) +
                                      static_cast<W>(static_cast<U>(c)));
              });
            return each<T, T, T>([](T a, T b) {
              return static_cast<T>(static_cast<W>(static_cast<U>(a)) * static_cast<W>(static_cast<U>(b)));
            });
          }
          if (has(parts, "hi")) {
            if (adds)
              return each<T, T, T, T>(
                  [](T a, T b, T c) { return wrap<T>(static_cast<U>(high(a, b)) + static_cast<U>(c)); });
            return each<T, T, T>([](T a, T b) { return high(a, b); });
          }
          if constexpr (sizeof(T) < 8) {
            using V = Wider<T>;
            if (has(parts, "wide")) {
              if (adds)
                return each<V, T, T, V>([](T a, T b, V c) {
                  return static_cast<V>(static_cast<std::make_unsigned_t<V>>(static_cast<V>(a) * b) +
                                        static_cast<std::make_unsigned_t<V>>(c));
                });
              return each<V, T, T>([](T a, T b) { return static_cast<V>(static_cast<V>(a) * b); });
            }
          }
        }
      }
      if constexpr (sizeof(T) >= 4) {
        if (op == "bfi")
          return each<T, T, T, uint32_t, uint32_t>([](T a, T b, uint32_t start, uint32_t length) -> T {
            start &= 255, length &= 255;
            if (start >= kBits || length == 0) return b;
            const U ones = length >= kBits ? ~U{0} : (U{1} << length) - 1;
            return static_cast<T>((U(b) & ~(ones << start)) | ((U(a) & ones) << start));
          });
      }
      return nullptr;
    }
  });
}

template <class T>
bool compare(int variant, T a, T b) {
  const bool unordered = a != a || b != b;
  switch (variant & 15) {
    case 0:
      return a == b;
    case 1:
      return !unordered && a != b;
    case 2:
      return a < b;
    case 3:
      return a <= b;
    case 4:
      return a > b;
    case 5:
      return a >= b;
    case 6:
      return unordered || a == b;
    case 7:
      return unordered || a != b;
    case 8:
      return unordered || a < b;
    case 9:
      return unordered || a <= b;
    case 10:
      return unordered || a > b;
    case 11:
      return unordered || a >= b;
    case 12:
      return !unordered;
    default:
      return unordered;
  }
}

Execute find_comparison(const Parts& parts, Instruction& in) {
  constexpr std::string_view kNames[] = {"eq",  "ne",  "lt",  "le",  "gt",  "ge",  "equ",
                                         "neu", "ltu", "leu", "gtu", "geu", "num", "nan"};
  constexpr std::string_view kUnsigned[] = {"lo", "ls", "hi", "hs"};
  int which = -1;
  for (int i = 0; i < 14; ++i)
    if (parts[1] == kNames[i]) which = i;
  for (int i = 0; i < 4; ++i)
    if (parts[1] == kUnsigned[i]) which = 2 + i;
  if (which < 0) return nullptr;
  const int joined = has(parts, "and") ? 1 : has(parts, "or") ? 2 : has(parts, "xor") ? 3 : 0;
  in.variant = which | joined << 4;
  return for_type(parts.back(), []<class T>(T) -> Execute {
    return [](const Instruction& i, Warp& w, uint32_t mask) {
      const auto *a = slots<T>(w, i.from[0]), *b = slots<T>(w, i.from[1]);
      for_lanes(mask, [&](unsigned lane) {
        bool p = compare<T>(i.variant, unpack<T>(a[lane]), unpack<T>(b[lane])), q = !p;
        if (const int with = i.variant >> 4) {
          const bool c = predicate(w, i, 2, lane);
          p = with == 1 ? p && c : with == 2 ? p || c : p != c;
          q = with == 1 ? q && c : with == 2 ? q || c : q != c;
        }
        set_predicate(w, i.to[0], lane, p);
        set_predicate(w, i.to[1], lane, q);
      });
    };
  });
}

template <class F>
Execute with_predicates(F) {
  return [](const Instruction& in, Warp& w, uint32_t mask) {
    for_lanes(mask, [&](unsigned lane) {
      set_predicate(w, in.to[0], lane,
                    F{}(predicate(w, in, 0, lane), in.from[1] != kNone && predicate(w, in, 1, lane)));
    });
  };
}
Execute find_of_predicates(std::string_view op) {
  if (op == "and") return with_predicates([](bool a, bool b) { return a && b; });
  if (op == "or") return with_predicates([](bool a, bool b) { return a || b; });
  if (op == "xor") return with_predicates([](bool a, bool b) { return a != b; });
  if (op == "not") return with_predicates([](bool a, bool) { return !a; });
  if (op == "mov") return with_predicates([](bool a, bool) { return a; });
  return nullptr;
}

Execute find_choice(const Parts& parts) {
  return for_type(parts.back(), []<class T>(T) -> Execute {
    return [](const Instruction& in, Warp& w, uint32_t mask) {
      auto* to = slots<T>(w, in.to[0]);
      const auto *a = slots<T>(w, in.from[0]), *b = slots<T>(w, in.from[1]);
      for_lanes(mask, [&](unsigned lane) { to[lane] = predicate(w, in, 2, lane) ? a[lane] : b[lane]; });
    };
  });
}

template <class T>
T round_by(int rounding, T v) {
  return rounding == 1   ? std::nearbyint(v)
         : rounding == 2 ? std::trunc(v)
         : rounding == 3 ? std::floor(v)
                         : std::ceil(v);
}
template <class D, class S, int kRounding>
D to_integer(S v) {
  if (v != v) return sizeof(D) == 8 && std::is_signed_v<D> ? std::numeric_limits<D>::min() : D{0};
  v = round_by(kRounding, v);
  const auto low = static_cast<S>(std::numeric_limits<D>::min());
  const S past =
      2 * static_cast<S>(static_cast<std::make_unsigned_t<D>>(std::numeric_limits<D>::max() / 2 + 1));
  if (v < low) return std::numeric_limits<D>::min();
  if (v >= past) return std::numeric_limits<D>::max();
  return static_cast<D>(v);
}

Execute find_conversion(const Parts& parts, const Instruction& in) {
  const std::string_view from = parts.back(), to = parts[parts.size() - 2];
  const bool sat = has(parts, "sat");
  if (to == "bf16x2" && from == "f32" && has(parts, "rn"))
    return each<uint32_t, float, float>(
        [](float a, float b) { return static_cast<uint32_t>(to_bf16(a).bits) << 16 | to_bf16(b).bits; });
  if (to == "bf16" && from == "f32" && has(parts, "rn"))
    return each<uint16_t, float>([](float a) { return to_bf16(a).bits; });
  if (to == "f32" && from == "bf16")
    return each<float, uint16_t>([](uint16_t a) { return to_float(bf16{a}); });
  const int rounding = has(parts, "rni")   ? 1
                       : has(parts, "rzi") ? 2
                       : has(parts, "rmi") ? 3
                       : has(parts, "rpi") ? 4
                                           : 0;
  return for_type(to, [&]<class D>(D) -> Execute {
    return for_type(from, [&]<class S>(S) -> Execute {
      if constexpr (kFloating<D> && kFloating<S>) {
        if (sat) {
          if constexpr (sizeof(D) == 4 && sizeof(S) == 4)
            return rounding ? nullptr : each<D, S>([](S v) { return saturate(v); });
          return nullptr;
        }
        if (rounding == 1) return each<D, S>([](S v) { return static_cast<D>(round_by(1, v)); });
        if (rounding == 2) return each<D, S>([](S v) { return static_cast<D>(round_by(2, v)); });
        if (rounding == 3) return each<D, S>([](S v) { return static_cast<D>(round_by(3, v)); });
        if (rounding == 4) return each<D, S>([](S v) { return static_cast<D>(round_by(4, v)); });
        return each<D, S>([](S v) { return static_cast<D>(v); });
      } else if constexpr (kFloating<S>) {
        if (rounding == 1) return each<D, S>([](S v) { return to_integer<D, S, 1>(v); });
        if (rounding == 2) return each<D, S>([](S v) { return to_integer<D, S, 2>(v); });
        if (rounding == 3) return each<D, S>([](S v) { return to_integer<D, S, 3>(v); });
        if (rounding == 4) return each<D, S>([](S v) { return to_integer<D, S, 4>(v); });
        return nullptr;
      } else {
        if (in.variant)  // the lower half of a wide register
          return sat ? nullptr
                     : each<D, uint64_t>([](uint64_t v) { return static_cast<D>(static_cast<S>(v)); });
        if (sat && kFloating<D>) return nullptr;
        if (sat) {
          if constexpr (!kFloating<D>)
            return each<D, S>([](S v) {
              if (std::cmp_less(v, std::numeric_limits<D>::min())) return std::numeric_limits<D>::min();
              if (std::cmp_greater(v, std::numeric_limits<D>::max())) return std::numeric_limits<D>::max();
              return static_cast<D>(v);
            });
        }
        return each<D, S>([](S v) { return static_cast<D>(v); });
      }
    });
  });
}

Execute find_bytes(const Parts& parts) {
  const std::string_view op = parts[0];
  if (op == "prmt" && parts.size() == 2)
    return each<uint32_t, uint32_t, uint32_t, uint32_t>([](uint32_t a, uint32_t b, uint32_t which) {
      const uint64_t all = static_cast<uint64_t>(b) << 32 | a;
      uint32_t result = 0;
      for (int i = 0; i < 4; ++i) {
        const uint32_t s = which >> (4 * i) & 15;
        uint32_t byte = static_cast<uint32_t>(all >> (8 * (s & 7)) & 255);
        if (s & 8) byte = byte & 128 ? 255 : 0;
        result |= byte << (8 * i);
      }
      return result;
    });
  if (op == "lop3")
    return each<uint32_t, uint32_t, uint32_t, uint32_t, uint32_t>(
        [](uint32_t a, uint32_t b, uint32_t c, uint32_t table) {
          uint32_t r = 0;
          for (uint32_t i = 0; i < 8; ++i)
            if (table >> i & 1) r |= (i & 4 ? a : ~a) & (i & 2 ? b : ~b) & (i & 1 ? c : ~c);
          return r;
        });
  return nullptr;
}

}  // namespace

Execute find_execute(const Parts& parts, Instruction& in) {
  const std::string_view op = parts[0];
  if (parts.back() == "pred")
    if (Execute e = find_of_predicates(op)) return e;
  if (Execute e = find_move(parts, in)) return e;
  if (Execute e = find_together(parts, in)) return e;
  if (op == "setp") return find_comparison(parts, in);
  if (op == "selp") return find_choice(parts);
  if (op == "cvt") return find_conversion(parts, in);
  if (op == "fma" && parts[1] == "rm" && parts.back() == "f32") return &fma_down;
  if (Execute e = find_bytes(parts)) return e;
  return find_sum(parts);
}

}  // namespace gm::emulated
