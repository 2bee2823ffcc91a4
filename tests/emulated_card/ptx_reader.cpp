// From a kernel's text to its instructions.
#include <algorithm>

#include "tests/emulated_card/ptx_lanes.h"
#include "tests/emulated_card/ptx_names.h"
#include "tests/emulated_card/ptx_text.h"

namespace gm::emulated {

namespace {

using Parts = std::vector<std::string_view>;

bool is_one_of(std::string_view word, std::initializer_list<std::string_view> words) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

/// The class of source operand i where it is a number: as the type says, but for the counts of shifts and of
/// bit fields and the factors of wide products.
Class class_of_source(const Parts& parts, size_t i) {
  const std::string_view op = parts[0], type = parts.back();
  if (type == "pred") return Class::predicate;
  if ((op == "shl" || op == "shr") && i == 1) return Class::word;
  if (op == "bfi" && i >= 2) return Class::word;
  if (has(parts, "wide")) return op == "mad" && i == 2 ? Class::wide : Class::word;
  return type.size() == 3 && type_bytes(type) == 8 ? Class::wide : Class::word;
}

class Reader {
 public:
  Reader(std::string_view text, const Variables& variables, const std::vector<Declaration>& module_shared,
         std::string_view dynamic_shared) {
    for (const auto& [name, range] : variables) names_.declare_symbol(name, range.begin);
    const size_t brace = text.find('{');
    read_head(text.substr(0, brace));
    for (const Declaration& d : module_shared)
      if (text.find(d.name) != std::string_view::npos) place(d, shared_end_);
    read_statements(text.substr(brace + 1));
    kernel_.info.static_shared_bytes = shared_end_ - kSharedStart;
    shared_end_ = round_up(shared_end_, 16);
    kernel_.shared_bytes = shared_end_ - kSharedStart;
    if (!dynamic_shared.empty()) names_.declare_symbol(std::string(dynamic_shared), shared_end_);
    for (const Statement& s : statements_) kernel_.code.push_back(read_instruction(s));
    for (const auto& [at, label] : jumps_) {
      const auto it = labels_.find(std::string(label));
      if (it == labels_.end()) refuse_ptx("no such label", label);
      kernel_.code[at].target = it->second;
    }
  }
  Kernel take() { return std::move(kernel_); }

 private:
  struct Statement {
    std::string_view text;
    size_t block;
  };

  void place(const Declaration& d, size_t& end) {
    end = round_up(end, d.align);
    names_.declare_symbol(d.name, end);
    end += d.bytes;
  }

  // ".visible .entry name(.param .u64 p, ...) .maxntid 256, 1, 1"
  void read_head(std::string_view head) {
    KernelInfo& info = kernel_.info;
    const size_t entry = head.find(".entry") + 6, open = head.find('('), close = head.find(')');
    info.name = std::string(trim(head.substr(entry, open - entry)));
    if (open != std::string_view::npos)
      for (const std::string_view parameter : split(head.substr(open + 1, close - open - 1), ',')) {
        const Declaration d = read_declaration(parameter);
        place(d, info.parameter_bytes);
        info.parameter_offsets.push_back(info.parameter_bytes - d.bytes);
        info.parameter_sizes.push_back(d.bytes);
      }
    const size_t bound = head.find(".maxntid");
    if (bound == std::string_view::npos) return;
    const std::string_view line = head.substr(bound + 8, head.find('\n', bound) - bound - 8);
    info.max_threads = 1;
    for (const std::string_view threads : split(line, ','))
      info.max_threads *= static_cast<int>(names_.value(threads));
  }

  // Declarations are read at once, instructions when all that they name is known.
  void read_statements(std::string_view body) {
    size_t begin = 0;
    const auto so_far = [&](size_t end) { return trim(body.substr(begin, end - begin)); };
    for (size_t i = 0; i < body.size(); ++i) {
      const char c = body[i];
      const bool between = so_far(i).empty();
      if (c == '/' && body.substr(i, 2) == "//") {  // to the end of the line
        i = std::min(body.find('\n', i), body.size());
        if (between) begin = i;
      } else if (c == ':' && body.substr(i, 2) != "::" && body.substr(i - 1, 2) != "::") {
        labels_[std::string(so_far(i))] = static_cast<uint32_t>(statements_.size());
        begin = i + 1;
      } else if (c == ';') {
        read_statement(so_far(i));
        begin = i + 1;
      } else if (c == '{' && between) {
        names_.open_block();
        begin = i + 1;
      } else if (c == '}' && between) {
        names_.close_block();
        begin = i + 1;
      }
    }
  }
  void read_statement(std::string_view s) {
    if (s.empty() || starts(s, ".pragma")) return;
    if (s.front() != '.')
      statements_.push_back({s, names_.block()});
    else if (starts(s, ".reg"))
      names_.declare_registers(s);
    else if (starts(s, ".shared"))
      place(read_declaration(s), shared_end_);
    else if (starts(s, ".local"))
      place(read_declaration(s), kernel_.local_bytes);
    else
      refuse_ptx("unknown directive", s);
  }

  Instruction read_instruction(const Statement& statement) {
    names_.look_up_in(statement.block);
    Instruction in;
    std::string_view s = in.text = statement.text;
    if (s.front() == '@') {
      std::string_view guard = split_at_blanks(s)[0];
      s = trim(s.substr(guard.size()));
      guard.remove_prefix(1);
      in.guard_negated = guard.front() == '!';
      in.guard = known(in.guard_negated ? guard.substr(1) : guard, in).slot;
    }
    const std::string_view mnemonic = split_at_blanks(s)[0];
    const Parts parts = split(mnemonic, '.'), operands = split(s.substr(mnemonic.size()), ',');
    const std::string_view op = parts[0];
    if (op == "bra") {
      in.kind = Kind::branch;
      jumps_.emplace_back(kernel_.code.size(), operands.at(0));
    } else if (op == "ret" || op == "exit") {
      in.kind = Kind::leave;
    } else if (op == "bar" && !has(parts, "warp")) {
      read_barrier(in, parts, operands);
    } else {
      op == "cp" ? read_copy(in, operands) : read_operands(in, parts, operands);
      if (op == "ld" || op == "st") in.variant = in.variant && type_bytes(parts.back()) < 8;
      in.execute = find_execute(parts, in);
      if (!in.execute)
        in.execute = [](const Instruction&, Warp&, uint32_t) {
          throw Fault("an instruction this machine lacks", 0);
        };
    }
    return in;
  }

  Register known(std::string_view name, const Instruction& in) {
    const auto r = names_.find(name);
    if (!r) refuse_ptx("unknown register", in.text);
    return *r;
  }

  void read_barrier(Instruction& in, const Parts& parts, const Parts& operands) {
    const bool reduces = has(parts, "red");
    in.kind = reduces ? Kind::barrier_reduction : Kind::barrier;
    if (operands.size() != (reduces ? 3 : 1) || operands[reduces ? 1 : 0] != "0")
      refuse_ptx("barrier of a part of the block", in.text);
    if (!reduces) return;
    in.variant = has(parts, "or") ? 0 : 1;
    if (!has(parts, "or") && !has(parts, "and")) refuse_ptx("unknown reduction", in.text);
    in.to[0] = known(operands[0], in).slot;
    read_source(in, 0, operands[2], Class::predicate);
  }

  // cp.async [to], [from], bytes of the copy, bytes that are read; or the number of a wait.
  void read_copy(Instruction& in, const Parts& operands) {
    if (operands.size() == 1) in.variant = static_cast<int>(names_.value(operands[0]));
    if (operands.size() < 3) return;
    read_address(operands[0], in.address, in.address_wide, in.offset);
    read_address(operands[1], in.second_address, in.second_wide, in.second_offset);
    in.variant = static_cast<int>(names_.value(operands[2]));
    if (operands.size() > 3) read_source(in, 0, operands[3], Class::word);
  }

  void read_address(std::string_view s, uint32_t& slot, bool& wide, int64_t& offset) {
    for (const std::string_view part : split(s.substr(1, s.size() - 2), '+'))
      if (const auto r = names_.find(part)) {
        slot = r->slot;
        wide = r->wide();
      } else {
        offset += static_cast<int64_t>(names_.value(part));
      }
  }

  // Results, addresses and sources in the order of the text; {a, b} are several of them.
  // in.variant becomes what find_execute has to know of them: of a mov the number of results; of others
  // whether a wide register holds something narrower (ld, st), or is read by its lower half (cvt).
  void read_operands(Instruction& in, const Parts& parts, const Parts& operands) {
    const std::string_view op = parts[0];
    const bool has_result = !is_one_of(op, {"st", "red", "membar", "fence", "griddepcontrol", "bar"});
    size_t results = 0, sources = 0;
    for (size_t i = 0; i < operands.size(); ++i) {
      const std::string_view o = operands[i];
      const bool several = o.front() == '{';
      const Parts names = several ? split(o.substr(1, o.size() - 2), ',') : split(o, '|');
      if (i == 0 && has_result) {
        for (const std::string_view name : names) {
          if (results == std::size(in.to)) refuse_ptx("too many results", in.text);
          const Register r = name == "_" ? Register{} : known(name, in);
          in.to[results++] = r.slot;
          if (op == "ld" && r.wide()) in.variant = 1;
        }
        if (op == "mov") in.variant = static_cast<int>(results);
      } else if (o.front() == '[') {
        read_address(o, in.address, in.address_wide, in.offset);
      } else {
        for (const std::string_view name : names) {
          if (sources == std::size(in.from)) refuse_ptx("too many operands", in.text);
          const Class kind = several && op == "mov" ? Class::word : class_of_source(parts, sources);
          const Register r = read_source(in, sources++, name, kind);
          if (r.kind == kind || r.kind == Class::predicate) continue;
          if (!r.wide() || (op != "cvt" && op != "st")) refuse_ptx("register of another width", in.text);
          in.variant = 1;
        }
      }
    }
    if (op == "shfl" || op == "bar") {  // the last one: which lanes take part
      in.members = in.from[sources - 1];
      in.from[sources - 1] = kNone;
    }
  }

  Register read_source(Instruction& in, size_t i, std::string_view name, Class kind) {
    if (name.front() == '!') {
      in.negated |= 1u << i;
      name.remove_prefix(1);
    }
    const Register r = names_.source(name, kind);
    in.from[i] = r.slot;
    return r;
  }

  Kernel kernel_;
  Names names_{kernel_};
  size_t shared_end_ = kSharedStart;
  std::vector<Statement> statements_;
  std::unordered_map<std::string, uint32_t> labels_;
  std::vector<std::pair<size_t, std::string_view>> jumps_;  // instruction, label
};

}  // namespace

Kernel read_kernel(std::string_view text, const Variables& variables,
                   const std::vector<Declaration>& module_shared, std::string_view dynamic_shared) {
  return Reader(text, variables, module_shared, dynamic_shared).take();
}

}  // namespace gm::emulated
