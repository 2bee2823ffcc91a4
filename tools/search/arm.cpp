#include "tools/search/arm.h"

#include <cmath>
#include <filesystem>

#include "engine/atomic_file.h"
#include "kernels/common/clock.h"
#include "kernels/common/error.h"

namespace gm {

namespace {

// Second counters of the draws: children of training steps, children to score; every sampler has its own.
constexpr uint32_t kTrainDraws = 0, kScoreDraws = 1;
uint32_t draws_of(const std::string& sampler, uint32_t kind) { return kind + 2 * sampler_stream(sampler); }

}  // namespace

double metric_of(const ConfusionMatrix& confusion, const RewardConfig& config, int metric_class) {
  const Metrics m = metrics_of(confusion);
  if (config.metric == "macro_f1") return m.macro.f1;
  if (config.metric == "recall") return m.per_class.at(static_cast<size_t>(metric_class)).recall;
  return m.accuracy;
}

std::vector<HostBatch> minibatches(Loader& loader, int64_t first, int64_t count) {
  std::vector<HostBatch> batches;
  int64_t epoch = first / loader.batches();
  loader.start_epoch(epoch, first % loader.batches());
  while (static_cast<int64_t>(batches.size()) < count) {
    HostBatch b;
    if (loader.next(b))
      batches.push_back(std::move(b));
    else
      loader.start_epoch(++epoch, 0);
  }
  return batches;
}

SearchArm::SearchArm(SearchShared& shared, const std::string& sampler, Device& controller_device)
    : shared_(shared),
      name_(sampler),
      weights_(shared.space, static_cast<uint64_t>(shared.config.run.train.seed)),
      sampler_(make_sampler(sampler, shared.space, controller_device,
                            {.iterations = shared.config.iterations,
                             .children = shared.config.children,
                             .seed = static_cast<uint64_t>(shared.config.run.train.seed),
                             .controller = shared.config.controller})) {}

bool SearchArm::iterate() {
  if (!trained_ && !train()) return false;
  if (!score_children()) return false;
  ++iteration_;
  trained_ = false;
  if (done()) save();
  return true;
}

bool SearchArm::train() {
  const SearchConfig& c = shared_.config;
  const int64_t batches = shared_.training.batches(), total = c.iterations * c.train_steps;
  const int64_t warmup = std::llround(c.run.schedule.warmup_epochs * static_cast<double>(batches));
  int64_t step = iteration_ * c.train_steps;
  shared_.training.start_epoch(step / batches, step % batches);
  double loss = 0;
  HostBatch batch;
  for (int64_t i = 0; i < c.train_steps; ++i, ++step) {
    if (shared_.stop.load()) return false;
    while (!shared_.training.next(batch)) shared_.training.start_epoch(step / batches, 0);
    PhiloxStream draws(static_cast<uint64_t>(c.run.train.seed), RngUse::sample, static_cast<uint32_t>(step),
                       draws_of(name_, kTrainDraws));
    ChildNetwork& child = shared_.cache.child(sampler_->to_train(draws));
    loss += child.train(weights_, batch,
                        learning_rate(c.run.schedule, c.run.optimizer.lr, step, warmup, total), step);
    ++work_done_;
    shared_.progress();
  }
  loss_ = loss / static_cast<double>(c.train_steps);
  trained_ = true;
  save();
  return true;
}

SearchArm::Score SearchArm::score(const ChoiceVector& choices, const std::vector<HostBatch>& batches) {
  ChildNetwork& child = shared_.cache.child(choices);
  child.load(weights_);
  ConfusionMatrix confusion(shared_.space.base().classes);
  for (const HostBatch& b : batches)
    confusion.add({b.labels.data(), static_cast<size_t>(b.count)}, child.logits(b));
  Score s;
  s.metric = metric_of(confusion, shared_.config.reward, shared_.metric_class);
  s.reward = shared_.config.reward.reward(s.metric, child.size().macs);
  return s;
}

bool SearchArm::score_children() {
  const SearchConfig& c = shared_.config;
  std::vector<HostBatch> batches;  // read when the first child needs them
  std::vector<ScoredChild> scored;
  mean_reward_ = 0;
  for (int64_t k = 0; k < c.children; ++k) {
    if (shared_.stop.load()) return false;
    const int64_t index = iteration_ * c.children + k;
    PhiloxStream draws(static_cast<uint64_t>(c.run.train.seed), RngUse::sample, static_cast<uint32_t>(index),
                       draws_of(name_, kScoreDraws));
    const ChoiceVector choices = sampler_->to_score(draws, iteration_, k);
    const JournalEntry* known = shared_.journal.find(name_, index);
    if (known && known->choices != choices)
      fail(shared_.folder + "/journal.jsonl: child " + std::to_string(index) + " of " + name_ +
           " is not the one that this search would sample: the files do not belong together");
    if (!known) {
      if (batches.empty())
        batches = minibatches(shared_.scoring, iteration_ * c.score_batches, c.score_batches);
      const double start = seconds_now();
      const Score s = score(choices, batches);
      const NetworkSize size = shared_.cache.child(choices).size();
      shared_.journal.append({name_, iteration_, index, choices,
                              SearchSpace::text(shared_.space.network(choices)), size.macs, size.parameters,
                              s.metric, s.reward, seconds_now() - start});
      known = &shared_.journal.entries().back();
    }
    scored.push_back({choices, known->reward});
    mean_reward_ += known->reward / static_cast<double>(c.children);
    ++work_done_;
    shared_.progress();
  }
  sampler_->learn(iteration_, scored);
  return true;
}

void SearchArm::save() const {
  TensorFile file;
  weights_.save(file);
  sampler_->save(file);
  file.metadata["format"] = "galaxy-morphology-search/1";
  file.metadata["iteration"] = std::to_string(iteration_);
  file.metadata["trained"] = trained_ ? "1" : "0";
  file.metadata["loss"] = exact_text(loss_);
  write_safetensors(state_file(), file);
}

void SearchArm::resume() {
  remove_unfinished(state_file());
  if (!std::filesystem::exists(state_file())) return;
  const TensorFile file = read_safetensors(state_file());
  const Metadata kept(state_file(), file.metadata, "not the state of a search");
  const int64_t iteration = kept.integer("iteration");
  const bool trained = kept.integer("trained") == 1;
  const double loss = file.metadata.contains("loss") ? kept.number("loss") : 0;  // older files have none
  SharedWeights weights = weights_;
  weights.load(file);
  sampler_->load(file);  // all or nothing: from here on the whole file is known to be good
  weights_ = std::move(weights);
  iteration_ = iteration;
  trained_ = trained;
  loss_ = loss;
  const SearchConfig& c = shared_.config;
  work_done_ = iteration_ * (c.train_steps + c.children) + (trained_ ? c.train_steps : 0);
}

}  // namespace gm
