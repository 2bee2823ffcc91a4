// What a training run needs in memory, kind by kind, before it starts; and what it took in the end.
#pragma once
#include <string>
#include <vector>

#include "engine/network_graph.h"
#include "engine/optimizer.h"

namespace gm {

/// Rows of the printed memory budget. Bytes are what stays resident at the peak of training.
class MemoryBudget {
 public:
  struct Row {
    std::string name;
    size_t bytes;
    std::string note;  // printed behind the figure
  };

  void add(const std::string& name, size_t bytes, const std::string& note = "") {
    rows_.push_back({name, bytes, note});
  }
  const std::vector<Row>& rows() const { return rows_; }
  /// Bytes of the row of that name; 0 when there is none.
  size_t bytes(const std::string& name) const;
  size_t total() const;
  /// A line per row and one for the total, in MiB, under `title`; nothing without rows.
  std::vector<std::string> lines(const std::string& title) const;

 private:
  std::vector<Row> rows_;
};

/// "123.4": mebibytes.
std::string mib_text(size_t bytes);

struct BudgetOptions {
  Backend backend = Backend::cpu;
  bool bf16_copies = false;  // of the parameters
  bool recompute = false;    // train.recompute
  int threads = 1;           // of the CPU backend
  size_t libraries = 0;      // what the device's libraries hold
  OptimizerConfig optimizer;
};

/// Everything a Trainer allocates on its device, from the graphs alone. The row of the training activations
/// says what they would be with the other setting of `recompute`.
MemoryBudget training_budget(const NetworkGraph& train, const NetworkGraph& eval,
                             const BudgetOptions& options);

/// Resident memory of this process, now and at its peak so far; 0 where /proc is missing.
size_t resident_bytes();
size_t peak_resident_bytes();

}  // namespace gm
