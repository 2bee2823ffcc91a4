// Arithmetic over the lanes of a warp.
#pragma once
#include <bit>
#include <tuple>
#include <type_traits>

#include "tests/emulated_card/ptx_program.h"

namespace gm::emulated {

template <class T>
using Slot = std::conditional_t<sizeof(T) == 8, uint64_t, uint32_t>;

template <class T>
Slot<T>* slots(Warp& w, uint32_t index) {
  if constexpr (sizeof(T) == 8)
    return &w.wides[static_cast<size_t>(index) * kLanes];
  else
    return &w.words[static_cast<size_t>(index) * kLanes];
}
template <class T>
T unpack(Slot<T> s) {
  if constexpr (std::is_floating_point_v<T>)
    return std::bit_cast<T>(s);
  else
    return static_cast<T>(s);
}
template <class T>
Slot<T> pack(T v) {
  if constexpr (std::is_floating_point_v<T>)
    return std::bit_cast<Slot<T>>(v);
  else if constexpr (std::is_signed_v<T> && sizeof(T) < 4)
    return static_cast<uint32_t>(static_cast<int32_t>(v));
  else
    return static_cast<Slot<T>>(v);
}

template <class F>
void for_lanes(uint32_t mask, F f) {
  if (mask == kAll)
    for (unsigned i = 0; i < kLanes; ++i) f(i);
  else
    for (; mask; mask &= mask - 1) f(static_cast<unsigned>(std::countr_zero(mask)));
}

template <class D, class F, class... S, size_t... I>
void apply(const Instruction& in, Warp& w, uint32_t mask, std::index_sequence<I...>) {
  Slot<D>* const to = slots<D>(w, in.to[0]);
  const std::tuple<const Slot<S>*...> from{slots<S>(w, in.from[I])...};
  for_lanes(mask, [&](unsigned lane) { to[lane] = pack<D>(F{}(unpack<S>(std::get<I>(from)[lane])...)); });
}

/// to[0] = f(from[0], from[1] ...), for operands of the types S.
template <class D, class... S, class F>
Execute each(F) {
  return [](const Instruction& in, Warp& w, uint32_t mask) {
    apply<D, F, S...>(in, w, mask, std::index_sequence_for<S...>{});
  };
}

/// f(a value of the type that PTX names so); null for other names.
template <class F>
Execute for_type(std::string_view name, F f) {
  if (name == "f32") return f(float{});
  if (name == "f64") return f(double{});
  if (name == "s32") return f(int32_t{});
  if (name == "u32" || name == "b32") return f(uint32_t{});
  if (name == "s64") return f(int64_t{});
  if (name == "u64" || name == "b64") return f(uint64_t{});
  if (name == "s16") return f(int16_t{});
  if (name == "u16" || name == "b16") return f(uint16_t{});
  if (name == "s8") return f(int8_t{});
  if (name == "u8" || name == "b8") return f(uint8_t{});
  return nullptr;
}

inline bool has(const std::vector<std::string_view>& parts, std::string_view part) {
  for (size_t i = 1; i < parts.size(); ++i)
    if (parts[i] == part) return true;
  return false;
}

/// A register of 32 lanes as a mask.
inline bool predicate(const Warp& w, const Instruction& in, int operand, unsigned lane) {
  return ((w.predicates[in.from[operand]] >> lane & 1) != 0) != ((in.negated >> operand & 1) != 0);
}
inline void set_predicate(Warp& w, uint32_t index, unsigned lane, bool value) {
  if (index == kNone) return;
  w.predicates[index] = (w.predicates[index] & ~(1u << lane)) | (static_cast<uint32_t>(value) << lane);
}

/// Instructions of the other files; null when they are not theirs.
Execute find_move(const std::vector<std::string_view>& parts, Instruction& in);
Execute find_together(const std::vector<std::string_view>& parts, Instruction& in);

}  // namespace gm::emulated
