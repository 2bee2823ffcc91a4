#include "tests/emulated_card/ptx_machine.h"

#include <algorithm>
#include <charconv>
#include <mutex>

#include "tests/emulated_card/ptx_program.h"

namespace gm::emulated {

// Kernels are read when they run first: there are thousands.
struct Module::Contents {
  struct Entry {
    std::string_view text;
    std::unique_ptr<Kernel> kernel;
  };
  std::string text;
  int target = 0;
  Variables variables;
  std::vector<std::unique_ptr<std::vector<unsigned char>>> storage;
  std::vector<Declaration> shared;
  std::string dynamic_shared;
  mutable std::map<std::string, Entry> entries;
  mutable uint64_t launches = 0;
  mutable std::mutex mutex;

  Kernel& kernel(Entry& e) const {
    if (!e.kernel)
      e.kernel = std::make_unique<Kernel>(read_kernel(e.text, variables, shared, dynamic_shared));
    return *e.kernel;
  }
};

namespace {

// Where the brace opened at `open` is closed. Braces of vectors and inner blocks pair up between.
size_t end_of_body(std::string_view text, size_t open) {
  int depth = 0;
  for (size_t i = open; i < text.size(); ++i) {
    if (text[i] == '{') ++depth;
    if (text[i] == '}' && --depth == 0) return i;
  }
  refuse_ptx("a kernel without an end", text.substr(open, 80));
}

}  // namespace

Module::Module(std::string_view text) : contents_(std::make_unique<Contents>()) {
  Contents& c = *contents_;
  c.text = std::string(text);
  std::string_view all = c.text;
  for (size_t at = 0; at < all.size();) {
    const size_t end = std::min(all.find('\n', at), all.size());
    const std::string_view line = all.substr(at, end - at), declaration = line.substr(0, line.find(';'));
    const auto entry = line.find(".entry ");
    if (starts(line, ".target ")) {
      std::from_chars(line.data() + line.find("sm_") + 3, line.data() + line.size(), c.target);
    } else if (starts(line, ".extern .shared")) {
      c.dynamic_shared = read_declaration(declaration).name;
    } else if (starts(line, ".shared")) {
      c.shared.push_back(read_declaration(declaration));
    } else if (starts(line, ".global") || starts(line, ".visible .global")) {
      if (line.find('=') != std::string_view::npos) refuse_ptx("a variable with values", line);
      const Declaration d = read_declaration(declaration);
      c.storage.push_back(std::make_unique<std::vector<unsigned char>>(d.bytes));
      const auto begin = reinterpret_cast<uintptr_t>(c.storage.back()->data());
      c.variables.emplace_back(d.name, Range{begin, begin + d.bytes});
    } else if (entry != std::string_view::npos && !starts(line, "//")) {
      const size_t last = end_of_body(all, all.find('{', at));
      Contents::Entry e;
      e.text = all.substr(at, last - at);
      const std::string name = read_kernel(e.text.substr(0, e.text.find('{')), {}, {}, {}).info.name;
      c.entries.emplace(name, std::move(e));
      at = last;
      continue;
    }
    at = end + 1;
  }
}
Module::~Module() = default;

const KernelInfo* Module::find(const std::string& name) const {
  const std::lock_guard lock(contents_->mutex);
  const auto it = contents_->entries.find(name);
  if (it == contents_->entries.end()) return nullptr;
  return &contents_->kernel(it->second).info;
}
int Module::target() const { return contents_->target; }

void Module::run(const KernelInfo& kernel, Dim grid, Dim block, size_t dynamic_shared_bytes,
                 const unsigned char* parameters, const Memory& global) const {
  const Kernel* code = nullptr;
  uint64_t order = 0;
  {
    const std::lock_guard lock(contents_->mutex);
    code = &contents_->kernel(contents_->entries.at(kernel.name));
    order = ++contents_->launches;
  }
  run_grid(*code, grid, block, dynamic_shared_bytes, parameters, global, contents_->variables, order);
}

}  // namespace gm::emulated
