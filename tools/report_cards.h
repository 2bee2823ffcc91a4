// The parts of report.html that say what was used: model card, data card, commands.
#pragma once
#include <string>

#include "tools/report.h"

namespace gm {

/// "12.3 M", "269 k", "512"
std::string count_text(int64_t n);
/// A sentence when images that the network was trained on take part in the evaluation, else "".
std::string overlap_warning(const Evaluation& e);

std::string model_card(const ReportInput& in);
std::string data_card(const ReportInput& in);
std::string commands(const ReportInput& in);

}  // namespace gm
