// A matrix product as cuBLASLt sees it. D = op(A) op(B) [+ D] [+ bias], column-major. A row-major (rows,
// columns) matrix is column-major (columns, rows) with the same memory, so nothing is ever transposed in
// memory.
#pragma once
#include <cstdint>
#include <cstdio>
#include <span>
#include <sstream>
#include <string>

#include "kernels/common/dtype.h"

namespace gm {

struct GemmProblem {
  bool transpose_a, transpose_b;
  int64_t m, n, k, lda, ldb, ldd;
  DType operands, result;
  bool accumulate, bias;
};

/// All of a problem in one line: the key of its plan in memory and in the file of choices.
inline std::string plan_key(const GemmProblem& p, bool tf32) {
  std::string key = "gemm";
  for (int64_t v :
       {p.m, p.n, p.k, p.lda, p.ldb, p.ldd, int64_t(p.transpose_a), int64_t(p.transpose_b),
        int64_t(p.operands), int64_t(p.result), int64_t(p.accumulate), int64_t(p.bias), int64_t(tf32)})
    key += ' ' + std::to_string(v);
  return key;
}

/// An algorithm of cuBLASLt as text: the library promises that its words mean the same in every process with
/// the same version.
inline std::string algorithm_name(std::span<const uint64_t> words) {
  std::string name = "algorithm";
  char digits[20];
  for (uint64_t word : words) {
    std::snprintf(digits, sizeof digits, " %llx", static_cast<unsigned long long>(word));
    name += digits;
  }
  return name;
}
/// The way back; false when the text is no algorithm of that many words.
inline bool read_algorithm(const std::string& name, std::span<uint64_t> words) {
  std::istringstream text(name);
  std::string title, more;
  text >> title >> std::hex;
  for (uint64_t& word : words) text >> word;
  return title == "algorithm" && text && !(text >> more);
}

}  // namespace gm
