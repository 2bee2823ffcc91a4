// Tables of networks that were trained with one budget.
#pragma once
#include <string>
#include <utility>
#include <vector>

#include "tools/search/candidates.h"

namespace gm {

/// A row: columns of the comparison's own (name, value), then the result.
struct ReportRow {
  std::vector<std::pair<std::string, std::string>> columns;
  CandidateResult result;
};

/// NAME.csv: own columns, epochs, accuracy, low, high, loss, macs, parameters, seconds.
std::string report_csv(const std::vector<ReportRow>& rows);
/// The same as a table in Markdown, without seconds.
std::string report_table(const std::vector<ReportRow>& rows);

}  // namespace gm
