#include "tests/emulated_card/ptx_machine.h"

#include <charconv>
#include <mutex>

#include "tests/emulated_card/ptx_program.h"

namespace gm::emulated {

// Kernels are read when they run first: there are thousands.
struct Module::Contents {
  struct Entry {
    std::string_view text;
    KernelInfo info;
    std::unique_ptr<Kernel> kernel;
  };
  std::string text;
  int target = 0;
  std::vector<std::pair<std::string, Range>> variables;
  std::vector<Range> ranges;
  std::vector<std::unique_ptr<std::vector<unsigned char>>> storage;
  std::vector<std::pair<std::string, size_t>> shared;
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

// "name[bytes]" of a variable's declaration; bytes of its element type times its length.
std::pair<std::string, size_t> declared(std::string_view line) {
  size_t end = line.find_first_of("[;=");
  size_t count = 1, element = 1;
  if (line[end] == '[') std::from_chars(line.data() + end + 1, line.data() + line.size(), count);
  std::string_view head = line.substr(0, end);
  while (!head.empty() && head.back() == ' ') head.remove_suffix(1);
  const size_t space = head.find_last_of(" \t");
  const std::string_view type = head.substr(0, space);
  size_t bits = 8;
  const size_t dot = type.find_last_of('.');
  std::from_chars(type.data() + dot + 2, type.data() + type.size(), bits);
  element = bits / 8;
  return {std::string(head.substr(space + 1)), count * element};
}

// Where the brace opened at `open` is closed. Braces of vectors and inner blocks pair up between.
size_t end_of_body(std::string_view text, size_t open) {
  int depth = 0;
  for (size_t i = open; i < text.size(); ++i) {
    if (text[i] == '{') ++depth;
    if (text[i] == '}' && --depth == 0) return i;
  }
  throw std::runtime_error("PTX: a kernel without an end");
}

}  // namespace

Module::Module(std::string_view text) : contents_(std::make_unique<Contents>()) {
  Contents& c = *contents_;
  c.text = std::string(text);
  std::string_view all = c.text;
  for (size_t at = 0; at < all.size();) {
    const size_t end = std::min(all.find('\n', at), all.size());
    const std::string_view line = all.substr(at, end - at);
    const auto entry = line.find(".entry ");
    if (line.substr(0, 8) == ".target ") {
      std::from_chars(line.data() + line.find("sm_") + 3, line.data() + line.size(), c.target);
    } else if (line.find(".extern .shared") == 0) {
      c.dynamic_shared = declared(line).first;
    } else if (line.find(".shared") == 0) {
      c.shared.push_back(declared(line));
    } else if (line.find(".global") == 0 || line.find(".visible .global") == 0 || line.find(".const") == 0) {
      if (line.find('=') != std::string_view::npos)
        throw std::runtime_error("PTX: variables with values are not known: " + std::string(line));
      const auto [name, bytes] = declared(line);
      c.storage.push_back(std::make_unique<std::vector<unsigned char>>(bytes));
      const auto begin = reinterpret_cast<uintptr_t>(c.storage.back()->data());
      c.variables.emplace_back(name, Range{begin, begin + bytes});
      c.ranges.push_back({begin, begin + bytes});
    } else if (entry != std::string_view::npos && line.find("//") != 0) {
      const size_t last = end_of_body(all, all.find('{', at));
      Contents::Entry e;
      e.text = all.substr(at, last - at);
      const size_t brace = e.text.find('{');
      // The head alone, for what a launch has to know; static shared memory is counted when the body is read.
      e.info = read_kernel(e.text.substr(0, brace + 1), {}, {}, {}).info;
      c.entries.emplace(e.info.name, std::move(e));
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
std::vector<const KernelInfo*> Module::kernels() const {
  std::vector<const KernelInfo*> all;
  for (const auto& [name, e] : contents_->entries) all.push_back(&e.info);
  return all;
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
  run_grid(*code, grid, block, dynamic_shared_bytes, parameters, global, contents_->ranges, order);
}

}  // namespace gm::emulated
