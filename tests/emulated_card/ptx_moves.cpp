// Moves, loads, stores, atomics and asynchronous copies.
#include <cstring>

#include "tests/emulated_card/ptx_lanes.h"

namespace gm::emulated {

namespace {

using Parts = std::vector<std::string_view>;

uint64_t address_of(const Instruction& in, const Warp& w, unsigned lane) {
  const uint64_t base = in.address == kNone ? 0
                        : in.address_wide   ? w.wides[static_cast<size_t>(in.address) * kLanes + lane]
                                            : w.words[static_cast<size_t>(in.address) * kLanes + lane];
  return base + static_cast<uint64_t>(in.offset);
}

template <class T, class Register>
void load(const Instruction& in, Warp& w, uint32_t mask) {
  for_lanes(mask, [&](unsigned lane) {
    const unsigned char* from = access(w, static_cast<int>(lane), in.space, address_of(in, w, lane),
                                       sizeof(T) * in.elements, in.read_only ? Use::read_only : Use::read);
    for (int i = 0; i < in.elements; ++i) {
      T v;
      std::memcpy(&v, from + sizeof(T) * static_cast<size_t>(i), sizeof v);
      if (in.to[i] != kNone) slots<Register>(w, in.to[i])[lane] = pack<Register>(static_cast<Register>(v));
    }
  });
}
template <class T, class Register>
void store(const Instruction& in, Warp& w, uint32_t mask) {
  for_lanes(mask, [&](unsigned lane) {
    unsigned char* to = access(w, static_cast<int>(lane), in.space, address_of(in, w, lane),
                               sizeof(T) * in.elements, Use::write);
    for (int i = 0; i < in.elements; ++i) {
      const T v = static_cast<T>(unpack<Register>(slots<Register>(w, in.from[i])[lane]));
      std::memcpy(to + sizeof(T) * static_cast<size_t>(i), &v, sizeof v);
    }
  });
}

Space space_of(const Parts& parts) {
  for (const std::string_view p : parts) {
    if (p == "global") return Space::global;
    if (p == "shared" || p == "shared::cta") return Space::shared;
    if (p == "local") return Space::local;
    if (p == "param") return Space::parameter;
  }
  return Space::generic;
}

// Registers of 64 bits hold smaller values widened, as their type says (`in.variant`: the operand is wide).
template <template <class, class> class Way>
Execute by_width(std::string_view type, bool wide) {
  return for_type(type, [wide]<class T>(T) -> Execute {
    if constexpr (sizeof(T) == 8) {
      return &Way<T, T>::run;
    } else {
      if constexpr (!std::is_floating_point_v<T>)
        if (wide) return &Way<T, std::conditional_t<std::is_signed_v<T>, int64_t, uint64_t>>::run;
      if (wide) return nullptr;
      if constexpr (std::is_floating_point_v<T>)
        return &Way<T, T>::run;
      else
        return &Way<T, std::conditional_t<std::is_signed_v<T>, int32_t, uint32_t>>::run;
    }
  });
}
template <class T, class R>
struct Load {
  static void run(const Instruction& in, Warp& w, uint32_t mask) { load<T, R>(in, w, mask); }
};
template <class T, class R>
struct Store {
  static void run(const Instruction& in, Warp& w, uint32_t mask) { store<T, R>(in, w, mask); }
};

int elements_of(const Parts& parts) {
  return has(parts, "v2") ? 2 : has(parts, "v4") ? 4 : has(parts, "v8") ? 8 : 1;
}

// mov of a vector: two or four registers as one, or one as several.
template <class Whole, class Part>
void join(const Instruction& in, Warp& w, uint32_t mask) {
  constexpr int kParts = sizeof(Whole) / sizeof(Part);
  for_lanes(mask, [&](unsigned lane) {
    Whole v = 0;
    for (int i = 0; i < kParts; ++i)
      v |= static_cast<Whole>(unpack<Part>(slots<Part>(w, in.from[i])[lane]))
           << (8 * sizeof(Part) * static_cast<size_t>(i));
    slots<Whole>(w, in.to[0])[lane] = pack<Whole>(v);
  });
}
template <class Whole, class Part>
void part(const Instruction& in, Warp& w, uint32_t mask) {
  constexpr int kParts = sizeof(Whole) / sizeof(Part);
  for_lanes(mask, [&](unsigned lane) {
    const Whole v = unpack<Whole>(slots<Whole>(w, in.from[0])[lane]);
    for (int i = 0; i < kParts; ++i)
      if (in.to[i] != kNone)
        slots<Part>(w, in.to[i])[lane] =
            pack<Part>(static_cast<Part>(v >> (8 * sizeof(Part) * static_cast<size_t>(i))));
  });
}
int count(const uint32_t* operands, int most) {
  int n = 0;
  while (n < most && operands[n] != kNone) ++n;
  return n;
}
Execute find_mov(const Parts& parts, const Instruction& in) {
  const int from = count(in.from, 8),
            to = in.variant;  // a part may be thrown away, so `to` is counted by the reader
  const bool wide = parts.back() == "b64" || parts.back() == "u64";
  if (from == 2) return wide ? &join<uint64_t, uint32_t> : &join<uint32_t, uint16_t>;
  if (from == 4) return &join<uint64_t, uint16_t>;
  if (to == 2) return wide ? &part<uint64_t, uint32_t> : &part<uint32_t, uint16_t>;
  if (to == 4) return &part<uint64_t, uint16_t>;
  return for_type(parts.back(), []<class T>(T) -> Execute { return each<T, T>([](T v) { return v; }); });
}

Execute find_cvta(const Parts& parts) {
  if (has(parts, "to")) {
    if (has(parts, "global")) return each<uint64_t, uint64_t>([](uint64_t a) { return a; });
    return each<uint64_t, uint64_t>([](uint64_t a) { return a & ~kWindows; });
  }
  if (has(parts, "shared")) return each<uint64_t, uint64_t>([](uint64_t a) { return a | kSharedWindow; });
  if (has(parts, "local")) return each<uint64_t, uint64_t>([](uint64_t a) { return a | kLocalWindow; });
  if (has(parts, "global")) return each<uint64_t, uint64_t>([](uint64_t a) { return a; });
  return nullptr;
}

// Lanes one after another, as a card does it in an order of its own.
template <class T, class F>
Execute changing(F) {
  return [](const Instruction& in, Warp& w, uint32_t mask) {
    for_lanes(mask, [&](unsigned lane) {
      unsigned char* at =
          access(w, static_cast<int>(lane), in.space, address_of(in, w, lane), sizeof(T), Use::atomic);
      T old;
      std::memcpy(&old, at, sizeof old);
      const T now = F{}(old, unpack<T>(slots<T>(w, in.from[0])[lane]));
      std::memcpy(at, &now, sizeof now);
      if (in.to[0] != kNone) slots<T>(w, in.to[0])[lane] = pack<T>(old);
    });
  };
}
Execute find_atomic(const Parts& parts) {
  return for_type(parts.back(), [&]<class T>(T) -> Execute {
    if constexpr (sizeof(T) >= 4) {
      if (has(parts, "add")) return changing<T>([](T a, T b) { return static_cast<T>(a + b); });
      if constexpr (std::is_unsigned_v<T>)
        if (has(parts, "inc"))
          return changing<T>([](T a, T b) { return a >= b ? T{0} : static_cast<T>(a + 1); });
    }
    return nullptr;
  });
}

// ---- cp.async: bytes arrive as late as they may, at the wait for their group
void note_copy(const Instruction& in, Warp& w, uint32_t mask) {
  const unsigned bytes = static_cast<unsigned>(in.variant);
  for_lanes(mask, [&](unsigned lane) {
    const uint64_t from = (in.second_wide ? w.wides[static_cast<size_t>(in.second_address) * kLanes + lane]
                                          : w.words[static_cast<size_t>(in.second_address) * kLanes + lane]) +
                          static_cast<uint64_t>(in.second_offset);
    unsigned wanted = bytes;
    if (in.from[0] != kNone) wanted = w.words[static_cast<size_t>(in.from[0]) * kLanes + lane];
    if (wanted > bytes) throw Fault("cp.async of more bytes than its size", static_cast<int>(lane));
    w.copies.back().push_back(
        {address_of(in, w, lane), from, wanted, bytes - wanted, static_cast<int>(lane)});
  });
}
void end_group(const Instruction&, Warp& w, uint32_t) { w.copies.emplace_back(); }
void finish(Warp& w, const std::vector<PendingCopy>& group) {
  for (const PendingCopy& c : group) {
    const size_t bytes = c.bytes + c.zeros;
    unsigned char* to = access(w, c.lane, Space::shared, c.to, bytes, Use::write);
    if (c.from % bytes != 0) throw Fault("cp.async from a misaligned address", c.lane);
    const size_t step = c.bytes == bytes ? bytes : 1;  // a part of the chunk byte by byte
    for (size_t i = 0; i < c.bytes; i += step)
      std::memcpy(to + i, access(w, c.lane, Space::global, c.from + i, step, Use::read), step);
    std::memset(to + c.bytes, 0, c.zeros);
  }
}
void wait_groups(const Instruction& in, Warp& w, uint32_t) {
  const bool all = in.variant < 0;
  const size_t left = all ? 0 : static_cast<size_t>(in.variant);
  const size_t committed = w.copies.size() - 1;
  for (size_t i = 0; i < committed && committed - i > left; ++i) {
    finish(w, w.copies[i]);
    w.copies[i].clear();
  }
  if (all) {
    finish(w, w.copies.back());
    w.copies.back().clear();
  }
  while (w.copies.size() > 1 && w.copies.front().empty()) w.copies.erase(w.copies.begin());
}

}  // namespace

Execute find_move(const Parts& parts, Instruction& in) {
  const std::string_view op = parts[0];
  if (op == "mov") return find_mov(parts, in);
  if (op == "ld") {
    in.space = space_of(parts);
    in.read_only = has(parts, "nc");
    in.elements = static_cast<uint8_t>(elements_of(parts));
    return by_width<Load>(parts.back(), in.variant != 0);
  }
  if (op == "st") {
    in.space = space_of(parts);
    in.elements = static_cast<uint8_t>(elements_of(parts));
    return by_width<Store>(parts.back(), in.variant != 0);
  }
  if (op == "cvta") return find_cvta(parts);
  if (op == "atom" || op == "red") {
    in.space = space_of(parts);
    return find_atomic(parts);
  }
  if (op == "cp" && parts[1] == "async") {
    if (has(parts, "commit_group")) return &end_group;
    if (has(parts, "wait_all")) return in.variant = -1, &wait_groups;
    if (has(parts, "wait_group")) return &wait_groups;  // variant: the groups that may go on
    return &note_copy;
  }
  const auto nothing = [](const Instruction&, Warp&, uint32_t) {};
  if (op == "membar" || op == "fence") {
    if (has(parts, "cta")) return nothing;
    return [](const Instruction&, Warp& w, uint32_t) { w.block->order->fence(w.index); };
  }
  if (op == "griddepcontrol") return nothing;
  return nullptr;
}

}  // namespace gm::emulated
