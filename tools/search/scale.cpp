// gm_search scale: which compound scaling suits a network, and the networks that it gives. gm_search
// resolution: accuracy against input size.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>
#include <memory>

#include "engine/atomic_file.h"
#include "kernels/common/error.h"
#include "layers/compound_scaling.h"
#include "tools/cli.h"
#include "tools/pictures/chart.h"
#include "tools/run_config.h"
#include "tools/search/candidate_report.h"
#include "tools/search/commands.h"

namespace gm {

namespace {

namespace fs = std::filesystem;

struct Arguments {
  std::vector<std::string> configs, sets;
  std::string data, out;
  CandidateBudget budget;
  CandidateOptions options;
  // scale
  double step = 0.1, tolerance = 0.1;
  std::vector<double> factors, phis{1, 2, 3};
  // resolution, and of the networks that scale writes
  std::vector<int> sizes;
};

void declare_common(CLI::App& command, Arguments& a) {
  command.add_option("--data", a.data, "Galaxy10-layout .h5, catalog .csv or folder with labels.csv");
  command.add_option("--out", a.out, "folder of the comparison")->required();
  add_sets(command, a.sets, "override one key, e.g. --set train.batch=32");
  declare_budget_options(command, a.budget);
  declare_candidate_options(command, a.options);
}

// The resolved configuration of a network without a section `search`, its data by an absolute path.
YAML::Node training_config(const Arguments& a, const std::string& path) {
  YAML::Node yaml = load_config(path, a.sets);
  yaml.remove("search");
  set_path(yaml, "data", "path", a.data);
  set_budget(yaml, a.budget);
  return yaml;
}

std::string stem_of(const std::string& path) { return fs::path(path).stem().string(); }

// Results of all candidates, or none when some are still to come.
std::vector<CandidateResult> train_all(const std::vector<Candidate>& candidates, Arguments& a) {
  a.options.folder = a.out;
  const auto results = train_candidates(candidates, a.options, stop_on_signals());
  if (const std::string missing = missing_text(results); !missing.empty()) {
    if (!a.options.quiet) fmt::print("{}; the same command goes on\n", missing);
    return {};
  }
  std::vector<CandidateResult> all;
  for (const auto& r : results) all.push_back(*r);
  return all;
}

void write_report(const std::string& out, const std::string& title, const std::string& text,
                  const std::vector<ReportRow>& rows, const Chart& chart, bool quiet) {
  write_file_atomic(out + "/report.csv", report_csv(rows));
  write_file_atomic(out + "/accuracy.svg", chart_svg(chart));
  write_file_atomic(out + "/report.md", fmt::format("# {}\n\n{}\n\n{}\n![accuracy](accuracy.svg)\n", title,
                                                    text, report_table(rows)));
  if (!quiet) fmt::print("{}\n{}/report.md\n", report_table(rows), out);
}

// One of the networks that are written: for others to train, so with the file's own budget.
YAML::Node scaled_network(const Arguments& a, const YAML::Node& base, const ScalingFactors& f, size_t i) {
  const std::string& path = a.configs[0];
  const Architecture network = read_run_config(base, path).architecture;
  const int size = a.sizes.empty() ? scaled_size(network.input_size, f, a.phis[i]) : a.sizes[i];
  YAML::Node config = scaled_config(base, f, a.phis[i], size, path);
  config["model"]["name"] = fmt::format("{} (phi {:g})", network.name, a.phis[i]);
  read_run_config(config, fmt::format("{} scaled by phi {:g}", path, a.phis[i]));
  return config;
}

// The factors to compare. Throws when there are none, or a network to be written is not possible.
std::vector<ScalingFactors> factors_of(const Arguments& a, const YAML::Node& base) {
  if (!a.sizes.empty() && a.sizes.size() != a.phis.size())
    fail(fmt::format("--sizes has {} sizes for {} values of --phi", a.sizes.size(), a.phis.size()));
  std::vector<ScalingFactors> grid;
  if (a.factors.empty()) {
    grid = scaling_grid(a.step, a.tolerance);
  } else {
    grid = {{a.factors[0], a.factors[1], a.factors[2]}};
    if (std::abs(grid[0].cost() - 2) > a.tolerance)
      fail(fmt::format("--factors {:g}: alpha * beta^2 * gamma^2 is {:.3g}, not 2 within {:g}",
                       fmt::join(a.factors, ","), grid[0].cost(), a.tolerance));
  }
  for (const ScalingFactors& f : grid)
    for (size_t i = 0; i < a.phis.size(); ++i) scaled_network(a, base, f, i);
  return grid;
}

// The network itself and, at phi = 1, all of the grid. place: of each of these among the candidates, where
// factors that round to the same network share one.
struct Compared {
  std::vector<Candidate> candidates;
  std::vector<size_t> place;
};
Compared candidates_of(const Arguments& a, const YAML::Node& base, int base_size,
                       const std::vector<ScalingFactors>& grid) {
  const std::string& path = a.configs[0];
  Compared c{{{"base", base}}, {0}};
  std::map<std::string, size_t> known;
  for (const ScalingFactors& f : grid) {
    const YAML::Node config = scaled_config(base, f, 1, scaled_size(base_size, f, 1), path);
    const auto [entry, fresh] =
        known.emplace(architecture_yaml(read_run_config(config, path).architecture), c.candidates.size());
    if (fresh) c.candidates.push_back({fmt::format("a{:g}_b{:g}_g{:g}", f.alpha, f.beta, f.gamma), config});
    c.place.push_back(entry->second);
  }
  return c;
}

// Of the grid's results, which stand behind the network's own: of equals the one with the fewest MACs.
size_t most_accurate(const std::vector<CandidateResult>& results) {
  size_t winner = 1;
  for (size_t i = 2; i < results.size(); ++i) {
    const CandidateResult &r = results[i], &w = results[winner];
    if (r.val_accuracy > w.val_accuracy || (r.val_accuracy == w.val_accuracy && r.macs < w.macs)) winner = i;
  }
  return winner;
}

void report_comparison(const Arguments& a, int base_size, const std::vector<ScalingFactors>& grid,
                       const std::vector<CandidateResult>& results, size_t winner) {
  std::vector<ReportRow> rows;
  Series plain{.name = "the network itself", .mark = Series::Mark::points, .colour = Series::kGrey},
      scaled{.name = "phi 1", .mark = Series::Mark::points, .colour = 0};
  for (size_t i = 0; i < results.size(); ++i) {
    const ScalingFactors f = i ? grid[i - 1] : ScalingFactors{};
    const CandidateResult& r = results[i];
    rows.push_back({{{"alpha", fmt::format("{:g}", f.alpha)},
                     {"beta", fmt::format("{:g}", f.beta)},
                     {"gamma", fmt::format("{:g}", f.gamma)},
                     {"px", std::to_string(i ? scaled_size(base_size, f, 1) : base_size)}},
                    r});
    const Interval interval = r.accuracy_interval();
    Series& points = i ? scaled : plain;
    points.x.push_back(1e-6 * static_cast<double>(r.macs)), points.y.push_back(r.val_accuracy);
    points.low.push_back(interval.low), points.high.push_back(interval.high);
    points.notes.push_back(i ? fmt::format("alpha {:g}, beta {:g}, gamma {:g}", f.alpha, f.beta, f.gamma)
                             : "base");
  }
  const ScalingFactors& best = grid[winner - 1];
  const Interval first = results[winner].accuracy_interval();
  const auto close = std::count_if(results.begin() + 1, results.end(),
                                   [&](const CandidateResult& r) { return r.val_accuracy >= first.low; });
  write_report(
      a.out, "Compound scaling of " + stem_of(a.configs[0]),
      fmt::format("All combinations in steps of {:g} with alpha · beta² · gamma² = 2 ± {:g} at phi = 1, {} "
                  "epochs each, beside the network itself: accuracy of the last epoch on {} validation "
                  "images, 95 % intervals (Wilson). Most accurate: alpha {:g}, beta {:g}, gamma {:g}; the "
                  "accuracy of {} of the {} combinations lies in its interval or above.",
                  a.step, a.tolerance, results[0].epochs, results[0].val_images, best.alpha, best.beta,
                  best.gamma, close, grid.size()),
      rows,
      {.title = "Scaled networks",
       .x = {.label = "MACs, millions"},
       .y = {.label = "validation accuracy"},
       .series = {plain, scaled}},
      a.options.quiet);
}

// Trains and reports; the place of the best in the grid, none when some are still to be trained.
std::optional<size_t> compare(Arguments& a, const std::vector<ScalingFactors>& grid) {
  const std::string& path = a.configs[0];
  const YAML::Node base = training_config(a, path);
  const int base_size = read_run_config(base, path).architecture.input_size;
  const Compared compared = candidates_of(a, base, base_size, grid);
  const std::vector<CandidateResult> trained = train_all(compared.candidates, a);
  if (trained.empty()) return std::nullopt;
  std::vector<CandidateResult> results;
  for (const size_t p : compared.place) results.push_back(trained[p]);
  const size_t winner = most_accurate(results);
  report_comparison(a, base_size, grid, results, winner);
  return winner - 1;
}

void scale(Arguments& a) {
  const std::string& path = a.configs[0];
  YAML::Node base = load_config(path, a.sets);
  base.remove("search");
  const std::vector<ScalingFactors> grid = factors_of(a, base);
  size_t best = 0;
  if (a.factors.empty()) {
    const std::optional<size_t> found = compare(a, grid);
    if (!found) return;
    best = *found;
  } else {
    make_folder(a.out);
  }
  for (size_t i = 0; i < a.phis.size(); ++i) {
    const std::string file = fmt::format("{}/{}_phi{:g}.yaml", a.out, stem_of(path), a.phis[i]);
    write_file_atomic(file, fmt::format("# {} scaled by alpha {:g}, beta {:g}, gamma {:g}, phi {:g}\n{}",
                                        stem_of(path), grid[best].alpha, grid[best].beta, grid[best].gamma,
                                        a.phis[i], config_text(scaled_network(a, base, grid[best], i))));
    if (!a.options.quiet) fmt::print("{}\n", file);
  }
}

void resolution(Arguments& a) {
  std::vector<Candidate> candidates;
  std::vector<std::pair<std::string, int>> what;
  for (const std::string& path : a.configs)
    for (const int size : a.sizes) {
      YAML::Node config = training_config(a, path);
      config["input"]["size"] = size;
      candidates.push_back({fmt::format("{}_{}px", stem_of(path), size), config});
      what.push_back({stem_of(path), size});
    }
  const std::vector<CandidateResult> results = train_all(candidates, a);
  if (results.empty()) return;
  std::vector<ReportRow> rows;
  Chart chart{.title = "Accuracy against resolution",
              .x = {.label = "input size, px"},
              .y = {.label = "validation accuracy"}};
  for (size_t i = 0; i < results.size(); ++i) {
    const CandidateResult& r = results[i];
    rows.push_back({{{"network", what[i].first}, {"px", std::to_string(what[i].second)}}, r});
    if (chart.series.empty() || chart.series.back().name != what[i].first)
      chart.series.push_back({.name = what[i].first, .mark = Series::Mark::line_points});
    Series& s = chart.series.back();
    const Interval interval = r.accuracy_interval();
    s.x.push_back(what[i].second), s.y.push_back(r.val_accuracy);
    s.low.push_back(interval.low), s.high.push_back(interval.high);
  }
  write_report(a.out, "Accuracy against resolution (S2 Fig. 6)",
               fmt::format("{} epochs each; last epoch, 95 % intervals (Wilson) of {} validation images.",
                           results[0].epochs, results[0].val_images),
               rows, chart, a.options.quiet);
}

}  // namespace

std::function<bool()> declare_search_scale(CLI::App& app) {
  auto a = std::make_shared<Arguments>();
  CLI::App* command = app.add_subcommand(
      "scale", "compare alpha, beta, gamma of compound scaling; write the scaled networks");
  command->add_option("config", a->configs, "network and recipe (YAML)")->required()->expected(1);
  declare_common(*command, *a);
  command->add_option("--step", a->step, "of the grid of alpha, beta, gamma from 1")
      ->capture_default_str()
      ->check(CLI::Range(0.01, 1.0));
  command->add_option("--tolerance", a->tolerance, "of alpha * beta^2 * gamma^2 = 2")
      ->capture_default_str()
      ->check(CLI::Range(0.0, 1.0));
  command->add_option("--factors", a->factors, "alpha,beta,gamma: take these and train nothing")
      ->delimiter(',')
      ->expected(3);
  command->add_option("--phi", a->phis, "of the networks to write (1,2,3)")->delimiter(',');
  command->add_option("--sizes", a->sizes, "their input sizes in px (default: base size times gamma^phi)")
      ->delimiter(',');
  return [a, command] {
    if (command->parsed()) scale(*a);
    return command->parsed();
  };
}

std::function<bool()> declare_search_resolution(CLI::App& app) {
  auto a = std::make_shared<Arguments>();
  CLI::App* command = app.add_subcommand("resolution", "accuracy against input size, as in S2 Fig. 6");
  command->add_option("configs", a->configs, "networks and recipes (YAML)")->required();
  declare_common(*command, *a);
  command->add_option("--sizes", a->sizes, "input sizes in px, e.g. 32,48,64,96")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->required();
  return [a, command] {
    if (command->parsed()) resolution(*a);
    return command->parsed();
  };
}

}  // namespace gm
