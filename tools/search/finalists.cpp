#include "tools/search/finalists.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "engine/atomic_file.h"
#include "kernels/common/error.h"
#include "tools/search/report.h"
#include "tools/shell.h"

namespace gm {

namespace fs = std::filesystem;

std::vector<Finalist> choose_finalists(const SearchConfig& config, const SearchSpace& space,
                                       const Journal& journal, const Rescore& rescore) {
  const Architecture base = space.base();
  const NetworkSize size = network_size(base);
  std::vector<Finalist> chosen{{"base", "", space.choices_of(base).value_or(ChoiceVector{}),
                                SearchSpace::text(base), size.macs, size.parameters}};
  std::set<std::string> sent{chosen[0].network};
  for (const std::string& sampler : config.samplers) {
    std::map<std::string, Finalist> pool;
    for (int64_t i = config.iterations - 1; i >= 0; --i) {
      if (i < config.first_late_iteration() && static_cast<int64_t>(pool.size()) >= config.finalists) break;
      for (const JournalEntry& e : journal.entries())
        if (e.sampler == sampler && e.iteration == i && !sent.count(e.network))
          pool[e.network] = {"", sampler, e.choices, e.network, e.macs, e.parameters};
    }
    std::vector<Finalist> ranked;
    for (auto& [network, f] : pool) {
      std::tie(f.score, f.reward) = rescore(sampler, f.choices);
      ranked.push_back(f);
    }
    std::stable_sort(ranked.begin(), ranked.end(),
                     [](const Finalist& a, const Finalist& b) { return a.reward > b.reward; });
    for (size_t i = 0; i < ranked.size() && static_cast<int64_t>(i) < config.finalists; ++i) {
      ranked[i].name = fmt::format("{}-{}", sampler, i + 1);
      sent.insert(ranked[i].network);
      chosen.push_back(ranked[i]);
    }
  }
  return chosen;
}

void write_finalists(const std::string& folder, const std::vector<Finalist>& finalists) {
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  for (const Finalist& f : finalists)
    list.push_back({{"name", f.name},
                    {"sampler", f.sampler},
                    {"choices", f.choices},
                    {"network", f.network},
                    {"macs", f.macs},
                    {"parameters", f.parameters},
                    {"score", f.score},
                    {"reward", f.reward}});
  write_file_atomic(folder + "/finalists.json", list.dump(1) + "\n");
}

std::vector<Finalist> read_finalists(const std::string& folder) {
  const std::string path = folder + "/finalists.json";
  std::ifstream in(path, std::ios::binary);
  if (!in) fail(path + ": cannot open; the search is not finished");
  std::vector<Finalist> list;
  try {
    for (const auto& j : nlohmann::json::parse(in))
      list.push_back({j.at("name"), j.at("sampler"), j.at("choices").get<ChoiceVector>(), j.at("network"),
                      j.at("macs"), j.at("parameters"), j.at("score"), j.at("reward")});
  } catch (const nlohmann::json::exception&) {
    fail(path + ": not the finalists of a search");
  }
  if (list.empty()) fail(path + ": holds no network");
  return list;
}

std::vector<std::string> train_finalists(const SearchConfig& config, const SearchSpace& space,
                                         const Journal& journal, const std::string& folder,
                                         CandidateOptions options, const std::atomic<bool>& stop) {
  const std::vector<Finalist> finalists = read_finalists(folder);
  auto text_of = [&](const Finalist& f, const std::string& name, const std::string& comment) {
    return network_config(config.training, f.choices.empty() ? space.base() : space.network(f.choices), name,
                          comment);
  };
  std::vector<Candidate> candidates;
  for (const Finalist& f : finalists) {
    candidates.push_back({f.name, parse_yaml(text_of(f, f.name, ""), f.name)});
  }
  options.folder = folder + "/finalists";
  const auto results = train_candidates(candidates, options, stop);
  if (const std::string missing = missing_text(results); !missing.empty())
    return {missing + ": gm_search finalists " + shell_word(folder)};

  size_t best = 0;  // of the found ones: the most accurate, of equals the cheapest
  for (size_t i = 1; i < finalists.size(); ++i)
    if (!best || results[i]->val_accuracy > results[best]->val_accuracy ||
        (results[i]->val_accuracy == results[best]->val_accuracy && results[i]->macs < results[best]->macs))
      best = i;
  SearchOutcome outcome{finalists, {}, best};
  for (const auto& r : results) outcome.results.push_back(*r);
  std::vector<std::string> lines = outcome_lines(outcome);
  if (best) {
    const Finalist& f = finalists[best];
    const std::string name = fs::absolute(folder).lexically_normal().filename().string();
    const std::string file = folder + "/found_" + (name.empty() ? "network" : name) + ".yaml";
    write_file_atomic(
        file,
        text_of(f, space.base().name + "-found",
                fmt::format("found by gm_search ({}): {}; {} parameters, {} MACs, validation accuracy {:.4f}",
                            f.sampler, f.network, f.parameters, f.macs, results[best]->val_accuracy)));
    lines.push_back("train it with: gm_train " + shell_word(file));
  }
  write_search_report(config, journal, outcome, folder);
  lines.push_back("report: " + folder + "/report.md");
  return lines;
}

}  // namespace gm
