#include "tools/search/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "engine/atomic_file.h"
#include "tools/pictures/chart.h"

namespace gm {

namespace {

double millions(int64_t n) { return 1e-6 * static_cast<double>(n); }

// Mean reward of an iteration, and the best one so far.
Chart reward_chart(const SearchConfig& config, const Journal& journal) {
  Chart chart{.title = "Reward of the networks that each sampler chose",
              .x = {.label = "iteration"},
              .y = {.label = config.reward.metric + fmt::format(" (MACs / {:g} M)^{:g}",
                                                                config.reward.target_macs * 1e-6,
                                                                config.reward.exponent)}};
  int colour = 0;
  for (const std::string& sampler : config.samplers) {
    std::map<int64_t, std::pair<double, int>> sums;
    std::map<int64_t, double> highest;
    for (const JournalEntry& e : journal.entries()) {
      if (e.sampler != sampler) continue;
      sums[e.iteration].first += e.reward;
      ++sums[e.iteration].second;
      highest[e.iteration] = std::max(highest[e.iteration], e.reward);
    }
    Series mean{.name = sampler + ", mean", .colour = colour},
        best{
            .name = sampler + ", best so far", .mark = Series::Mark::steps, .dashed = true, .colour = colour};
    double most = 0;
    for (const auto& [iteration, sum] : sums) {
      const auto x = static_cast<double>(iteration + 1);
      mean.x.push_back(x), mean.y.push_back(sum.first / sum.second);
      best.x.push_back(x), best.y.push_back(most = std::max(most, highest[iteration]));
    }
    chart.series.push_back(mean);
    chart.series.push_back(best);
    ++colour;
  }
  return chart;
}

Chart front_chart(const SearchConfig& config, const Journal& journal, const SearchOutcome& outcome) {
  Chart chart{.title = "Accuracy against multiply-accumulates",
              .x = {.label = "MACs, millions"},
              .y = {.label = config.reward.metric}};
  int colour = 0;
  for (const std::string& sampler : config.samplers) {
    Series scored{.name = sampler + ", shared weights", .mark = Series::Mark::points, .colour = colour};
    for (const JournalEntry& e : journal.entries())
      if (e.sampler == sampler && e.iteration >= config.first_late_iteration()) {
        scored.x.push_back(millions(e.macs)), scored.y.push_back(e.score);
        scored.notes.push_back(e.network);
      }
    Series front{.mark = Series::Mark::steps, .colour = colour};
    for (const size_t i : pareto_front(scored.x, scored.y))
      front.x.push_back(scored.x[i]), front.y.push_back(scored.y[i]);
    chart.series.push_back(scored);
    chart.series.push_back(front);
    ++colour;
  }
  Series trained{
      .name = "from scratch (validation accuracy)", .mark = Series::Mark::points, .colour = colour};
  for (size_t i = 0; i < outcome.results.size(); ++i) {
    const CandidateResult& r = outcome.results[i];
    const Interval interval = r.accuracy_interval();
    trained.x.push_back(millions(r.macs)), trained.y.push_back(r.val_accuracy);
    trained.low.push_back(interval.low), trained.high.push_back(interval.high);
    trained.notes.push_back(outcome.finalists[i].name + ": " + outcome.finalists[i].network);
  }
  chart.series.push_back(trained);
  return chart;
}

// The 95 % interval of the difference takes the two accuracies as independent: wider than a paired
// comparison.
std::string verdict(const SearchOutcome& o) {
  if (!o.best) return "No network was found";
  const CandidateResult &base = o.results[0], &found = o.results[o.best];
  const double difference = found.val_accuracy - base.val_accuracy;
  auto variance = [](const CandidateResult& r) {
    return r.val_accuracy * (1 - r.val_accuracy) / static_cast<double>(std::max<int64_t>(1, r.val_images));
  };
  const double half = 1.959963984540054 * std::sqrt(variance(base) + variance(found));
  return fmt::format(
      "{} is {} as accurate as the base network ({:.4f} against {:.4f}) at {} MACs "
      "({:.2f} M against {:.2f} M); difference in accuracy {:+.4f}, 95 % interval {:+.4f} to {:+.4f} as of "
      "independent samples (a paired comparison on the same images is narrower)",
      o.finalists[o.best].name, difference >= 0 ? "at least" : "not", found.val_accuracy, base.val_accuracy,
      found.macs <= base.macs ? "no more" : "more", millions(found.macs), millions(base.macs), difference,
      difference - half, difference + half);
}

}  // namespace

std::vector<std::string> outcome_lines(const SearchOutcome& o) {
  std::vector<std::string> lines;
  for (size_t i = 0; i < o.finalists.size(); ++i) {
    const CandidateResult& r = o.results[i];
    const Interval interval = r.accuracy_interval();
    lines.push_back(fmt::format("{:<10} accuracy {:.4f} ({:.4f} to {:.4f})  {:.2f} M MACs  {} parameters  {}",
                                o.finalists[i].name, r.val_accuracy, interval.low, interval.high,
                                millions(r.macs), r.params, o.finalists[i].network));
  }
  lines.push_back(verdict(o));
  return lines;
}

void write_search_report(const SearchConfig& config, const Journal& journal, const SearchOutcome& o,
                         const std::string& folder) {
  std::string page = fmt::format(
      "# Search around {}\n\n{}.\n\nData {}, {} validation images, {} px; {} iterations of {} training steps "
      "and {} networks for each sampler ({}); reward {} · (MACs / {:g} M)^{:g}.\n\n",
      config.run.architecture.name, verdict(o), config.run.data_path, o.results[0].val_images,
      config.run.architecture.input_size, config.iterations, config.train_steps, config.children,
      fmt::join(config.samplers, ", "), config.reward.metric, config.reward.target_macs * 1e-6,
      config.reward.exponent);
  page += fmt::format(
      "Trained from scratch, {} epochs each, same recipe and split; accuracy of the last epoch with its "
      "95 % interval\n"
      "(Wilson). The best of several is chosen on the same images: its accuracy is a little too high.\n\n"
      "| Network | Accuracy | Interval | MACs, M | Parameters | With shared weights | Stages |\n"
      "|---|---|---|---|---|---|---|\n",
      o.results[0].epochs);
  for (size_t i = 0; i < o.finalists.size(); ++i) {
    const CandidateResult& r = o.results[i];
    const Finalist& f = o.finalists[i];
    const Interval interval = r.accuracy_interval();
    page += fmt::format("| {}{} | {:.4f} | {:.4f} to {:.4f} | {:.2f} | {} | {} | {} |\n", f.name,
                        i && i == o.best ? " (found)" : "", r.val_accuracy, interval.low, interval.high,
                        millions(r.macs), r.params, i ? fmt::format("{:.4f}", f.score) : "", f.network);
  }
  page += "\n![reward](reward.svg)\n\n![front](front.svg)\n";
  write_file_atomic(folder + "/reward.svg", chart_svg(reward_chart(config, journal)));
  write_file_atomic(folder + "/front.svg", chart_svg(front_chart(config, journal, o)));
  write_file_atomic(folder + "/report.md", page);
}

}  // namespace gm
