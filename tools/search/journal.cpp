#include "tools/search/journal.h"

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "engine/atomic_file.h"
#include "kernels/common/error.h"

namespace gm {

std::string journal_line(const JournalEntry& e) {
  nlohmann::ordered_json j;
  j["sampler"] = e.sampler;
  j["iteration"] = e.iteration;
  j["index"] = e.index;
  j["choices"] = e.choices;
  j["network"] = e.network;
  j["macs"] = e.macs;
  j["parameters"] = e.parameters;
  j["score"] = e.score;
  j["reward"] = e.reward;
  j["seconds"] = e.seconds;
  return j.dump();
}

JournalEntry parse_journal_line(const std::string& line, const std::string& where) {
  try {
    const auto j = nlohmann::json::parse(line);
    JournalEntry e;
    e.sampler = j.at("sampler");
    e.iteration = j.at("iteration");
    e.index = j.at("index");
    e.choices = j.at("choices").get<ChoiceVector>();
    e.network = j.at("network");
    e.macs = j.at("macs");
    e.parameters = j.at("parameters");
    e.score = j.at("score");
    e.reward = j.at("reward");
    e.seconds = j.at("seconds");
    return e;
  } catch (const nlohmann::json::exception&) {
    fail(where + ": not a line of a search journal");
  }
}

Journal::Journal(const std::string& path) : path_(path) {
  const std::string text = std::filesystem::exists(path) ? read_file(path) : "";
  size_t at = 0;
  for (size_t end; (end = text.find('\n', at)) != std::string::npos; at = end + 1)
    entries_.push_back(
        parse_journal_line(text.substr(at, end - at), path + ":" + std::to_string(entries_.size() + 1)));
  if (at != text.size()) write_file_atomic(path, text.substr(0, at));
  file_.open(path, std::ios::app | std::ios::binary);
  if (!file_) fail(path + ": cannot write: " + std::strerror(errno));
}

const JournalEntry* Journal::find(const std::string& sampler, int64_t index) const {
  for (const JournalEntry& e : entries_)
    if (e.index == index && e.sampler == sampler) return &e;
  return nullptr;
}

void Journal::append(const JournalEntry& e) {
  file_ << journal_line(e) << '\n' << std::flush;
  if (!file_) fail(path_ + ": cannot write: " + std::strerror(errno));
  entries_.push_back(e);
}

}  // namespace gm
