#include "tests/emulated_card/ptx_names.h"

#include <cctype>

#include "tests/emulated_card/ptx_text.h"

namespace gm::emulated {

namespace {
std::string without_number(std::string name) {
  while (!name.empty() && std::isdigit(static_cast<unsigned char>(name.back()))) name.pop_back();
  return name;
}
}  // namespace

void Names::declare_registers(std::string_view text) {
  const auto words = split_at_blanks(text);  // .reg, .type, names
  const std::string_view type = words.at(1).substr(1);
  const Class kind = type == "pred" ? Class::predicate : type_bytes(type) == 8 ? Class::wide : Class::word;
  const size_t names = static_cast<size_t>(words.at(2).data() - text.data());
  for (const std::string_view name : split(text.substr(names), ','))
    if (const size_t at = name.find('<'); at != std::string_view::npos)
      families_[std::string(name.substr(0, at))] = kind;
    else
      declare(std::string(name), kind);
}

void Names::declare(const std::string& name, Class kind) {
  std::string unique = name;
  if (block_ != 0) {
    unique += '@' + std::to_string(block_);
    blocks_[block_].names[name] = unique;
  }
  families_[unique] = kind;
}

void Names::open_block() {
  blocks_.push_back({block_, {}});
  block_ = blocks_.size() - 1;
}
void Names::close_block() { block_ = blocks_[block_].outer; }

std::optional<Register> Names::find(std::string_view text) {
  std::string name(text);
  for (size_t b = block_; b != 0; b = blocks_[b].outer)
    if (const auto hidden = blocks_[b].names.find(name); hidden != blocks_[b].names.end()) {
      name = hidden->second;
      break;
    }
  if (const auto it = registers_.find(name); it != registers_.end()) return it->second;
  auto family = families_.find(name);
  if (family == families_.end()) family = families_.find(without_number(name));
  if (family == families_.end()) return std::nullopt;
  return registers_[name] = {family->second, new_slot(family->second)};
}

uint32_t Names::new_slot(Class kind) {
  return kind == Class::word ? kernel_.words++ : kind == Class::wide ? kernel_.wides++ : kernel_.predicates++;
}

uint32_t Names::constant(Class kind, uint64_t value) {
  const auto [it, created] = constants_[static_cast<size_t>(kind)].try_emplace(value, kNone);
  if (!created) return it->second;
  it->second = new_slot(kind);
  if (kind == Class::word) kernel_.word_constants.emplace_back(it->second, static_cast<uint32_t>(value));
  if (kind == Class::wide) kernel_.wide_constants.emplace_back(it->second, value);
  if (kind == Class::predicate) kernel_.predicate_constants.emplace_back(it->second, value ? kAll : 0);
  return it->second;
}

Register Names::source(std::string_view name, Class kind) {
  if (const auto r = find(name)) return *r;
  if (name.front() == '%') {
    const auto [it, created] = specials_.try_emplace(std::string(name), kNone);
    if (created) kernel_.special.emplace_back(name, it->second = new_slot(Class::word));
    return {Class::word, it->second};
  }
  return {kind, constant(kind, value(name))};
}

uint64_t Names::value(std::string_view name) const {
  uint64_t number = 0;
  if (read_immediate(name, number)) return number;
  const auto it = symbols_.find(std::string(name));
  if (it == symbols_.end()) refuse_ptx("unknown name", name);
  return it->second;
}

}  // namespace gm::emulated
