#include "tools/search/candidate_report.h"

#include <fmt/format.h>

namespace gm {

std::string report_csv(const std::vector<ReportRow>& rows) {
  std::string text;
  for (const ReportRow& row : rows) {
    if (text.empty()) {
      for (const auto& [name, value] : row.columns) text += name + ",";
      text += "epochs,accuracy,low,high,loss,macs,parameters,seconds\n";
    }
    for (const auto& [name, value] : row.columns) text += value + ",";
    const CandidateResult& r = row.result;
    const Interval i = r.accuracy_interval();
    text += fmt::format("{},{},{},{},{},{},{},{:.1f}\n", r.epochs, r.val_accuracy, i.low, i.high, r.val_loss,
                        r.macs, r.params, r.seconds);
  }
  return text;
}

std::string report_table(const std::vector<ReportRow>& rows) {
  std::string head = "|", line = "|", body;
  for (const ReportRow& row : rows) {
    if (body.empty()) {
      for (const auto& [name, value] : row.columns) head += " " + name + " |", line += "---|";
      head += " accuracy | 95 % interval | loss | MACs, M | parameters |\n";
      line += "---|---|---|---|---|\n";
    }
    body += "|";
    for (const auto& [name, value] : row.columns) body += " " + value + " |";
    const CandidateResult& r = row.result;
    const Interval i = r.accuracy_interval();
    body += fmt::format(" {:.4f} | {:.4f} to {:.4f} | {:.4f} | {:.2f} | {} |\n", r.val_accuracy, i.low,
                        i.high, r.val_loss, 1e-6 * static_cast<double>(r.macs), r.params);
  }
  return head + line + body;
}

}  // namespace gm
