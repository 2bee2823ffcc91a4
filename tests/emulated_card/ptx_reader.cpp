// From PTX text to instructions.
#include <algorithm>
#include <cctype>
#include <charconv>
#include <cstring>
#include <unordered_map>

#include "tests/emulated_card/ptx_lanes.h"

namespace gm::emulated {

namespace {

[[noreturn]] void refuse(const std::string& what, std::string_view text) {
  throw std::runtime_error("PTX: " + what + ": " + std::string(text));
}

std::string_view trim(std::string_view s) {
  while (!s.empty() && std::isspace(static_cast<unsigned char>(s.front()))) s.remove_prefix(1);
  while (!s.empty() && std::isspace(static_cast<unsigned char>(s.back()))) s.remove_suffix(1);
  return s;
}
bool starts(std::string_view s, std::string_view with) { return s.substr(0, with.size()) == with; }

std::vector<std::string_view> split(std::string_view s, char at) {
  std::vector<std::string_view> parts;
  int depth = 0;
  size_t begin = 0;
  for (size_t i = 0; i <= s.size(); ++i) {
    if (i < s.size() && (s[i] == '{' || s[i] == '[')) ++depth;
    if (i < s.size() && (s[i] == '}' || s[i] == ']')) --depth;
    if (i == s.size() || (s[i] == at && depth == 0)) {
      const std::string_view part = trim(s.substr(begin, i - begin));
      if (!part.empty()) parts.push_back(part);
      begin = i + 1;
    }
  }
  return parts;
}

size_t type_bytes(std::string_view type) {
  if (type == "pred") return 0;
  size_t bits = 0;
  std::from_chars(type.data() + 1, type.data() + type.size(), bits);
  return bits / 8;
}

/// An immediate's bits, of an operand of `bytes` bytes.
bool read_immediate(std::string_view s, uint64_t& value) {
  if (s.empty()) return false;
  if (s.size() == 10 && (starts(s, "0f") || starts(s, "0F"))) {
    return std::from_chars(s.data() + 2, s.data() + s.size(), value, 16).ec == std::errc();
  }
  if (s.size() == 18 && (starts(s, "0d") || starts(s, "0D"))) {
    return std::from_chars(s.data() + 2, s.data() + s.size(), value, 16).ec == std::errc();
  }
  const bool negative = s.front() == '-';
  if (negative) s.remove_prefix(1);
  if (s.empty() || !std::isdigit(static_cast<unsigned char>(s.front()))) return false;
  if (s.back() == 'U') s.remove_suffix(1);
  const bool hexadecimal = starts(s, "0x") || starts(s, "0X");
  if (hexadecimal) s.remove_prefix(2);
  const auto [end, error] = std::from_chars(s.data(), s.data() + s.size(), value, hexadecimal ? 16 : 10);
  if (error != std::errc() || end != s.data() + s.size()) return false;
  if (negative) value = ~value + 1;
  return true;
}

enum class Class : uint8_t { word, wide, predicate };
struct Register {
  Class kind;
  uint32_t slot;
};

class Reader {
 public:
  Reader(std::string_view text, const std::vector<std::pair<std::string, Range>>& variables,
         const std::vector<std::pair<std::string, size_t>>& module_shared, std::string_view dynamic_shared)
      : text_(text) {
    for (const auto& [name, range] : variables) symbols_[name] = range.begin;
    read_head();
    size_t used = kSharedStart;
    for (const auto& [name, bytes] : module_shared)
      if (text.find(name) != std::string_view::npos) {
        used = (used + 15) / 16 * 16;
        symbols_[name] = used;
        used += bytes;
      }
    shared_end_ = used;
    read_body();
    kernel_.info.static_shared_bytes = shared_end_ - kSharedStart;
    shared_end_ = (shared_end_ + 15) / 16 * 16;
    kernel_.shared_bytes = shared_end_ - kSharedStart;
    kernel_.dynamic_shared = shared_end_;
    if (!dynamic_shared.empty()) symbols_[std::string(dynamic_shared)] = shared_end_;
    for (const Pending& p : pending_) finish(p);
    for (const auto& [at, label] : jumps_) {
      const auto it = labels_.find(std::string(label));
      if (it == labels_.end()) refuse("no such label", label);
      kernel_.code[at].target = it->second;
    }
  }
  Kernel take() { return std::move(kernel_); }

 private:
  struct Pending {
    std::string_view text;
    size_t scope;
  };
  // A block in braces, whose registers hide those of the same names outside.
  struct Scope {
    size_t outer;
    std::unordered_map<std::string, std::string> names;  // as registers_ has them
  };

  void read_head() {
    const size_t open = text_.find('('), brace = text_.find('{');
    std::string_view head = text_.substr(0, std::min(open, brace));
    kernel_.info.name = std::string(trim(head.substr(head.find(".entry") + 6)));
    size_t close = brace;
    if (open < brace) {
      close = text_.find(')', open);
      size_t at = 0;
      for (std::string_view p : split(text_.substr(open + 1, close - open - 1), ',')) {
        size_t align = 0, bytes = 0, count = 1;
        std::string name;
        const auto words = split(p, ' ');
        for (size_t i = 0; i < words.size(); ++i) {
          std::string_view word = words[i];
          if (word == ".align") {
            std::from_chars(words[i + 1].data(), words[i + 1].data() + words[i + 1].size(), align);
            ++i;
          } else if (word == ".param" || word == ".ptr" || starts(word, ".global")) {
          } else if (word.front() == '.') {
            bytes = type_bytes(word.substr(1));
          } else {
            if (const size_t bracket = word.find('['); bracket != std::string_view::npos) {
              std::from_chars(word.data() + bracket + 1, word.data() + word.size(), count);
              word = word.substr(0, bracket);
            }
            name = std::string(word);
          }
        }
        align = std::max(align, bytes);
        at = (at + align - 1) / align * align;
        kernel_.info.parameter_offsets.push_back(at);
        kernel_.info.parameter_sizes.push_back(bytes * count);
        symbols_[name] = at;
        at += bytes * count;
      }
      kernel_.info.parameter_bytes = at;
    }
    const std::string_view directives = text_.substr(close, brace - close);
    if (const size_t at = directives.find(".maxntid"); at != std::string_view::npos) {
      int product = 1;
      for (std::string_view n : split(directives.substr(at + 8, directives.find('\n', at) - at - 8), ',')) {
        int value = 1;
        std::from_chars(n.data(), n.data() + n.size(), value);
        product *= value;
      }
      kernel_.info.max_threads = product;
    }
    body_ = text_.substr(brace + 1);
  }

  void read_body() {
    size_t begin = 0;
    for (size_t i = 0; i < body_.size(); ++i) {
      const char c = body_[i];
      if (c == '/' && i + 1 < body_.size() && body_[i + 1] == '/') {  // to the end of the line
        const size_t end = std::min(body_.find('\n', i), body_.size());
        if (trim(body_.substr(begin, i - begin)).empty()) begin = end;
        i = end;
        continue;
      }
      if (c == ':' && body_[i + 1] != ':' && (i == 0 || body_[i - 1] != ':')) {
        const std::string_view name = trim(body_.substr(begin, i - begin));
        labels_[std::string(name)] = static_cast<uint32_t>(pending_.size());
        begin = i + 1;
      } else if (c == ';') {
        statement(trim(body_.substr(begin, i - begin)));
        begin = i + 1;
      } else if ((c == '{' || c == '}') && trim(body_.substr(begin, i - begin)).empty()) {
        begin = i + 1;
        if (c == '{') {
          scopes_.push_back({scope_, {}});
          scope_ = scopes_.size() - 1;
        } else {
          scope_ = scopes_[scope_].outer;
        }
      }
    }
  }

  void statement(std::string_view s) {
    if (s.empty()) return;
    if (s.front() != '.') {
      pending_.push_back({s, scope_});
      return;
    }
    const auto words = split(s, ' ');
    if (starts(s, ".reg")) {
      std::vector<std::string_view> w;
      for (std::string_view word : split(s.substr(4), ' '))
        for (std::string_view part : split(word, '\t'))
          for (std::string_view name : split(part, ',')) w.push_back(name);
      const size_t bytes = type_bytes(w[0].substr(1));
      const Class kind = w[0] == ".pred" ? Class::predicate : bytes == 8 ? Class::wide : Class::word;
      for (size_t i = 1; i < w.size(); ++i) {
        if (const size_t at = w[i].find('<'); at != std::string_view::npos)
          families_[std::string(w[i].substr(0, at))] = kind;
        else
          declare(std::string(w[i]), kind);
      }
    } else if (starts(s, ".shared") || starts(s, ".local")) {
      size_t align = 1, bytes = 1, count = 1;
      std::string name;
      for (size_t i = 1; i < words.size(); ++i) {
        std::string_view word = words[i];
        if (word == ".align") {
          std::from_chars(words[i + 1].data(), words[i + 1].data() + words[i + 1].size(), align);
          ++i;
        } else if (word.front() == '.') {
          bytes = type_bytes(word.substr(1));
        } else {
          if (const size_t at = word.find('['); at != std::string_view::npos) {
            std::from_chars(word.data() + at + 1, word.data() + word.size(), count);
            word = word.substr(0, at);
          }
          for (std::string_view part : split(word, '\t')) name = std::string(part);
        }
      }
      size_t& end = starts(s, ".shared") ? shared_end_ : kernel_.local_bytes;
      end = (end + align - 1) / align * align;
      symbols_[name] = end;
      end += bytes * count;
    } else if (starts(s, ".pragma") || starts(s, ".loc") || starts(s, ".file")) {
    } else {
      refuse("unknown directive", s);
    }
  }

  // A register of one name, not of a family.
  void declare(const std::string& name, Class kind) {
    std::string unique = name;
    if (scope_ != 0) {
      unique += '@' + std::to_string(scope_);
      scopes_[scope_].names[name] = unique;
    }
    families_[unique] = kind;
  }
  static std::string family_of(std::string_view name) {
    size_t n = name.size();
    while (n > 0 && std::isdigit(static_cast<unsigned char>(name[n - 1]))) --n;
    return std::string(name.substr(0, n));
  }
  bool find_register(std::string_view text, Register& r) {
    std::string name(text);
    for (size_t s = scope_; s != 0; s = scopes_[s].outer)
      if (const auto it = scopes_[s].names.find(name); it != scopes_[s].names.end()) {
        name = it->second;
        break;
      }
    if (const auto it = registers_.find(name); it != registers_.end()) return r = it->second, true;
    auto family = families_.find(name);
    if (family == families_.end()) family = families_.find(family_of(name));
    if (family == families_.end()) return false;
    r.kind = family->second;
    r.slot = r.kind == Class::word   ? kernel_.words++
             : r.kind == Class::wide ? kernel_.wides++
                                     : kernel_.predicates++;
    registers_[name] = r;
    return true;
  }
  uint32_t word_constant(uint32_t value) {
    const auto [it, created] = words_.try_emplace(value, kernel_.words);
    if (created) kernel_.word_constants.emplace_back(kernel_.words++, value);
    return it->second;
  }
  uint32_t wide_constant(uint64_t value) {
    const auto [it, created] = wides_.try_emplace(value, kernel_.wides);
    if (created) kernel_.wide_constants.emplace_back(kernel_.wides++, value);
    return it->second;
  }

  uint32_t predicate_constant(bool value) {
    const auto [it, created] = truths_.try_emplace(value, kernel_.predicates);
    if (created) kernel_.predicate_constants.emplace_back(kernel_.predicates++, value ? kAll : 0);
    return it->second;
  }

  // The slot of a source operand that is read as a wide register or as a word.
  uint32_t source(std::string_view name, bool wide, std::string_view text) {
    Register r{};
    if (find_register(name, r)) {
      if (r.kind != Class::predicate && (r.kind == Class::wide) != wide)
        refuse("register of another width", text);
      return r.slot;
    }
    uint64_t value = 0;
    if (name.front() == '%') {
      const auto [it, created] = specials_.try_emplace(std::string(name), kernel_.words);
      if (created) kernel_.special.emplace_back(std::string(name), kernel_.words++);
      return it->second;
    }
    if (!read_immediate(name, value)) {
      const auto it = symbols_.find(std::string(name));
      if (it == symbols_.end()) refuse("unknown operand", text);
      value = it->second;
    }
    return wide ? wide_constant(value) : word_constant(static_cast<uint32_t>(value));
  }

  void address(std::string_view s, uint32_t& slot, bool& wide, int64_t& offset) {
    s = trim(s.substr(1, s.size() - 2));
    if (const size_t plus = s.find('+'); plus != std::string_view::npos) {
      uint64_t value = 0;
      if (!read_immediate(trim(s.substr(plus + 1)), value)) refuse("unknown offset", s);
      offset = static_cast<int64_t>(value);
      s = trim(s.substr(0, plus));
    }
    Register r{};
    if (find_register(s, r)) {
      slot = r.slot;
      wide = r.kind == Class::wide;
      return;
    }
    uint64_t value = 0;
    if (!read_immediate(s, value)) {
      const auto it = symbols_.find(std::string(s));
      if (it == symbols_.end()) refuse("unknown address", s);
      value = it->second;
    }
    offset += static_cast<int64_t>(value);
  }

  void finish(const Pending& p) {
    scope_ = p.scope;
    Instruction in;
    in.text = p.text;
    std::string_view s = p.text;
    if (s.front() == '@') {
      size_t end = 0;
      while (!std::isspace(static_cast<unsigned char>(s[end]))) ++end;
      std::string_view guard = s.substr(1, end - 1);
      if (guard.front() == '!') in.guard_negated = true, guard.remove_prefix(1);
      Register r{};
      if (!find_register(guard, r)) refuse("unknown guard", p.text);
      in.guard = r.slot;
      s = trim(s.substr(end));
    }
    size_t end = 0;
    while (end < s.size() && !std::isspace(static_cast<unsigned char>(s[end]))) ++end;
    const std::string_view mnemonic = s.substr(0, end);
    const auto parts = split(mnemonic, '.');
    const auto operands = split(s.substr(end), ',');
    const std::string_view op = parts[0], type = parts.back();
    if (op == "bra") {
      in.kind = Kind::branch;
      jumps_.emplace_back(kernel_.code.size(), operands[0]);
    } else if (op == "ret" || op == "exit") {
      in.kind = Kind::leave;
    } else if ((op == "bar" || op == "barrier") && !has(parts, "warp")) {
      barrier(in, parts, operands);
    } else {
      read_operands(in, parts, operands, type);
    }
    kernel_.code.push_back(in);
  }

  void barrier(Instruction& in, const std::vector<std::string_view>& parts,
               const std::vector<std::string_view>& operands) {
    if (has(parts, "red")) {
      in.kind = Kind::barrier_reduction;
      in.variant = has(parts, "or") ? 0 : has(parts, "and") ? 1 : 2;
      if (operands.size() != 3 || operands[1] != "0") refuse("barrier of a part of the block", in.text);
      operand(in, operands[2], 0, false);
      Register r{};
      find_register(operands[0], r);
      in.to[0] = r.slot;
    } else {
      in.kind = Kind::barrier;
      if (operands.size() != 1 || operands[0] != "0") refuse("barrier of a part of the block", in.text);
    }
  }

  // Source operand i: one name, perhaps a negated predicate.
  void operand(Instruction& in, std::string_view name, int i, bool wide, bool of_predicates = false) {
    if (name.front() == '!') {
      in.negated |= 1u << i;
      name.remove_prefix(1);
    }
    if (uint64_t value = 0; of_predicates && read_immediate(name, value)) {
      in.from[i] = predicate_constant(value != 0);
      return;
    }
    in.from[i] = source(name, wide, in.text);
  }

  void read_operands(Instruction& in, const std::vector<std::string_view>& parts,
                     const std::vector<std::string_view>& operands, std::string_view type) {
    const std::string_view op = parts[0];
    const bool no_result = op == "st" || op == "red" || op == "cp" || op == "membar" || op == "fence" ||
                           op == "griddepcontrol" || op == "prefetch" || op == "bar";
    int to = 0, from = 0;
    // Widths of sources: as the type says, but for shifts' counts, conversions and wide products.
    const auto wide_type = [](std::string_view t) { return t.size() == 3 && t.substr(1) == "64"; };
    bool from_wide = wide_type(type);
    bool first_address = true;
    bool vector_wide = false, joins = false;
    for (size_t i = 0; i < operands.size(); ++i) {
      std::string_view o = operands[i];
      if (i == 0 && !no_result) {
        std::vector<std::string_view> names;
        if (o.front() == '{')
          names = split(o.substr(1, o.size() - 2), ',');
        else
          names = split(o, '|');
        for (std::string_view name : names) {
          Register r{};
          if (name == "_")
            r.slot = kNone;
          else if (!find_register(name, r))
            refuse("unknown result", in.text);
          if (to >= 8) refuse("too many results", in.text);
          in.to[to++] = r.slot;
          vector_wide = vector_wide || r.kind == Class::wide;
        }
        continue;
      }
      if (o.front() == '[') {
        if (first_address)
          address(o, in.address, in.address_wide, in.offset);
        else
          address(o, in.second_address, in.second_wide, in.second_offset);
        first_address = false;
        continue;
      }
      if (o.front() == '{') {
        for (std::string_view name : split(o.substr(1, o.size() - 2), ',')) {
          Register r{};
          const bool is_register = find_register(name, r);
          if (from >= 12) refuse("too many operands", in.text);
          bool wide = is_register ? r.kind == Class::wide : from_wide;
          if (op == "st") vector_wide = wide;
          joins = true;
          in.from[from++] = source(name, wide, in.text);
        }
        continue;
      }
      bool wide = from_wide;
      if ((op == "shl" || op == "shr") && from == 1) wide = false;
      if ((op == "bfe" && from >= 1) || (op == "bfi" && from >= 2)) wide = false;
      if ((op == "mul" || op == "mad") && has(parts, "wide")) wide = op == "mad" && from == 2;
      if (op == "cvt") {  // a wide register may be read by its lower half
        Register r{};
        if (find_register(o, r) && r.kind == Class::wide && !from_wide) in.variant = 1, wide = true;
      }
      if (op == "shfl" || op == "vote" || op == "lop3" || op == "cp") wide = false;
      if (op == "mov" && to > 1) wide = to == 2 ? from_wide : true;
      if (op == "st") {
        Register r{};
        if (find_register(o, r)) wide = r.kind == Class::wide;
        vector_wide = wide;
      }
      if (op == "cp" && i >= 2) {
        if (i == 2) {
          uint64_t value = 0;
          read_immediate(o, value);
          in.variant = static_cast<int>(value);
          continue;
        }
      }
      if (op == "cp" && has(parts, "wait_group")) {
        uint64_t value = 0;
        read_immediate(o, value);
        in.variant = static_cast<int>(value);
        continue;
      }
      if (from >= 12) refuse("too many operands", in.text);
      operand(in, o, from++, wide, type == "pred");
    }
    if (op == "mov") in.variant = joins ? 1 : to;
    if (op == "ld" || op == "ldu" || op == "st") in.variant = vector_wide && type_bytes(type) < 8;
    in.execute = find_execute(parts, in);
    if (!in.execute)
      in.execute = [](const Instruction&, Warp&, uint32_t) {
        throw Fault("an instruction this machine lacks", 0);
      };
    if (in.kind == Kind::together && (op == "shfl" || op == "vote" || op == "bar")) {
      in.members = in.from[from - 1];
      in.from[from - 1] = kNone;
    }
  }

  std::string_view text_, body_;
  Kernel kernel_;
  size_t shared_end_ = kSharedStart;
  std::vector<Pending> pending_;
  std::vector<Scope> scopes_ = std::vector<Scope>(1);  // the first: the kernel's own
  size_t scope_ = 0;
  std::vector<std::pair<size_t, std::string_view>> jumps_;
  std::unordered_map<std::string, uint32_t> labels_, specials_;
  std::unordered_map<std::string, uint64_t> symbols_;
  std::unordered_map<std::string, Class> families_;
  std::unordered_map<std::string, Register> registers_;
  std::unordered_map<uint32_t, uint32_t> words_;
  std::unordered_map<uint64_t, uint32_t> wides_;
  std::unordered_map<bool, uint32_t> truths_;
};

}  // namespace

Kernel read_kernel(std::string_view text, const std::vector<std::pair<std::string, Range>>& variables,
                   const std::vector<std::pair<std::string, size_t>>& module_shared,
                   std::string_view dynamic_shared) {
  return Reader(text, variables, module_shared, dynamic_shared).take();
}

}  // namespace gm::emulated
