// When a run stops early, and what it leaves behind. The validation labels of an epoch decide its loss.
#include "engine/trainer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <numeric>
#include <set>

#include "engine/safetensors.h"
#include "layers/network.h"
#include "tests/tools_test_util.h"

namespace gm {
namespace {

using test::TempDir;

constexpr int kClasses = 3;
constexpr int64_t kBatch = 2;

/// One batch an epoch, the same images each time; `labels`: of all its images, by epoch.
class OneBatch : public BatchSource {
 public:
  explicit OneBatch(std::vector<int> labels) : labels_(std::move(labels)) {}
  int64_t samples() const override { return kBatch; }
  int64_t batches() const override { return 1; }
  void start_epoch(int64_t, int64_t) override {
    done_ = false;
    ++epoch_;
  }
  bool next(HostBatch& batch) override {
    if (done_) return false;
    batch = {.count = kBatch, .pixels = std::vector<float>(kBatch * 8 * 8 * 3)};
    for (size_t i = 0; i < batch.pixels.size(); ++i) batch.pixels[i] = static_cast<float>(i * 37 % 256);
    batch.labels.assign(kBatch, labels_.at(std::min(labels_.size() - 1, static_cast<size_t>(epoch_))));
    return done_ = true;
  }
  double wait_seconds() const override { return 0; }

 private:
  std::vector<int> labels_;
  int64_t epoch_ = -1;
  bool done_ = false;
};

/// Four batches an epoch, other images in each; `stop` is set with batch `last` of an epoch.
class FourBatches : public BatchSource {
 public:
  explicit FourBatches(std::atomic<bool>* stop = nullptr, int64_t last = 0) : stop_(stop), last_(last) {}
  int64_t samples() const override { return 4 * kBatch; }
  int64_t batches() const override { return 4; }
  void start_epoch(int64_t, int64_t first_batch) override { next_ = first_batch; }
  bool next(HostBatch& batch) override {
    if (next_ == 4) return false;
    batch = {.count = kBatch, .pixels = std::vector<float>(kBatch * 8 * 8 * 3)};
    for (size_t i = 0; i < batch.pixels.size(); ++i)
      batch.pixels[i] = static_cast<float>((i + static_cast<size_t>(next_)) * 37 % 256);
    batch.labels.assign(kBatch, static_cast<int>(next_ % kClasses));
    if (stop_ && next_ == last_) *stop_ = true;
    ++next_, ++given;
    return true;
  }
  double wait_seconds() const override { return 0; }
  int64_t given = 0;

 private:
  std::atomic<bool>* stop_;
  int64_t last_, next_ = 0;
};

struct Training {
  Training(const std::string& folder, double lr, const TrainerConfig& of) : device(open_device("cpu", {})) {
    Architecture a;
    a.classes = kClasses;
    a.input_size = 8;
    a.stem_filters = 8;
    a.stages = {{.block = BlockType::mbconv, .expand = 1, .filters = 8}};
    // Frozen batch norms: without a learning rate nothing changes.
    const BuildOptions build{.batch = kBatch, .training = true, .freeze = {.batch_norm = true}};
    const NetworkGraph train = build_network(a, table, build),
                       eval = build_network(a, table, {.batch = kBatch});
    weights = std::make_unique<Weights>(*device, table, false, true);
    weights->initialize(table, 5);
    TrainerConfig config = of;
    config.out_dir = folder;
    std::filesystem::create_directories(folder);
    trainer = std::make_unique<Trainer>(
        *device, train, eval, table, *weights, *weights, [] {},
        OptimizerConfig{.lr = lr, .average = lr > 0 ? 0.9 : 0}, ScheduleConfig{}, config);
  }
  /// Classes by the loss that they give as labels, the least first.
  std::vector<int> ranked() {
    std::vector<int> classes(kClasses);
    std::iota(classes.begin(), classes.end(), 0);
    std::vector<double> loss;
    for (int c : classes) {
      OneBatch source({c});
      loss.push_back(trainer->evaluate(source).first);
    }
    std::ranges::sort(classes, {}, [&](int c) { return loss[static_cast<size_t>(c)]; });
    return classes;
  }
  Trainer::Outcome operator()(BatchSource& train, BatchSource& validation, const std::atomic<bool>& stop) {
    TrainerEvents events;
    events.on_epoch = [&](const EpochMetrics& m, bool) { rates.push_back(m.lr); };
    return trainer->run(train, validation, events, stop);
  }
  Trainer::Outcome operator()(std::vector<int> validation_labels) {
    OneBatch train({ranked()[0]}), validation(std::move(validation_labels));
    TrainerEvents events;
    events.on_epoch = [&](const EpochMetrics& m, bool best) {
      gains += best ? '+' : '-';
      trained.emplace(m.train_loss, m.train_accuracy);
    };
    return trainer->run(train, validation, events, false);
  }

  std::unique_ptr<Device> device;
  ParameterTable table;
  std::unique_ptr<Weights> weights;
  std::unique_ptr<Trainer> trainer;
  std::string gains;                            // of the epochs of run()
  std::set<std::pair<double, double>> trained;  // loss and accuracy
  std::vector<double> rates;                    // of the epochs, learning rates
};

TEST(EngineTrainer, PatienceCountsTheEpochsSinceTheLastGain) {
  TempDir dir;
  Training run(dir / "run", 0, {.epochs = 9, .patience = 2});
  const std::vector<int> classes = run.ranked();
  const int good = classes[0], bad = classes[1];
  // The same loss again is no gain; a gain forgets the epochs before it.
  EXPECT_EQ(run({bad, bad, good, bad, good}), Trainer::Outcome::stopped_early);
  EXPECT_EQ(run.gains, "+-+--");
  EXPECT_EQ(run.trainer->best_epoch(), 2);
  EXPECT_EQ(run.trained.size(), 1u) << "sums begin anew in each epoch";
  EXPECT_EQ(run.trainer->confusion().total(), kBatch) << "of the last epoch";

  Training again(dir / "run", 0, {.epochs = 9, .patience = 2});
  again.trainer->resume();
  EXPECT_TRUE(again.trainer->ended());
  EXPECT_EQ(again({good}), Trainer::Outcome::stopped_early);
  EXPECT_EQ(again.gains, "");
}

TEST(EngineTrainer, PatienceGoesOnWhereARunIsResumed) {
  TempDir dir;
  Training first(dir / "run", 0, {.epochs = 2, .patience = 2});
  const int good = first.ranked()[0];
  EXPECT_EQ(first({good}), Trainer::Outcome::finished);
  EXPECT_EQ(first.gains, "+-");
  Training more(dir / "run", 0, {.epochs = 9, .patience = 2});
  more.trainer->resume();
  EXPECT_EQ(more({good}), Trainer::Outcome::stopped_early);
  EXPECT_EQ(more.gains, "-");
}

// The average is what the best weights are: the one of later epochs must not come back.
TEST(EngineTrainer, AnAverageIsRestoredToo) {
  TempDir dir;
  Training run(dir / "run", 1e-3, {.epochs = 9, .patience = 2, .restore_best = true});
  const std::vector<int> classes = run.ranked();
  EXPECT_EQ(run({classes[0], classes[2]}), Trainer::Outcome::stopped_early);
  EXPECT_EQ(run.gains, "+--");
  const TensorFile best = read_safetensors(dir / "run/best.safetensors"),
                   last = read_safetensors(dir / "run/last.safetensors");
  for (const auto& [name, tensor] : best.tensors) EXPECT_EQ(last.at(name).bytes, tensor.bytes) << name;
}

// The validation of a large set takes minutes.
TEST(EngineTrainer, AValidationThatIsInterruptedIsRepeatedOnResume) {
  TempDir dir;
  const std::atomic<bool> never = false;
  Training whole(dir / "whole", 1e-3, {.epochs = 2});
  FourBatches images;
  EXPECT_EQ(whole(images, images, never), Trainer::Outcome::finished);

  std::atomic<bool> stop = false;
  FourBatches left(&stop, 1);
  Training first(dir / "run", 1e-3, {.epochs = 2});
  EXPECT_EQ(first(images, left, stop), Trainer::Outcome::interrupted);
  EXPECT_EQ(left.given, 2);
  EXPECT_TRUE(first.rates.empty());
  EXPECT_FALSE(std::filesystem::exists(dir / "run/metrics.csv"));
  Training second(dir / "run", 1e-3, {.epochs = 2});
  second.trainer->resume();
  EXPECT_FALSE(second.trainer->ended());
  EXPECT_EQ(second(images, images, never), Trainer::Outcome::finished);
  EXPECT_EQ(second.rates, whole.rates);
  for (const char* name : {"/best.safetensors", "/last.safetensors"}) {
    const TensorFile a = read_safetensors(dir / (std::string("whole") + name)),
                     b = read_safetensors(dir / (std::string("run") + name));
    EXPECT_EQ(a.metadata, b.metadata) << name;
    for (const auto& [tensor, value] : a.tensors) EXPECT_EQ(value.bytes, b.at(tensor).bytes) << tensor;
  }

  // When all images have been seen there is nothing to repeat.
  stop = false;
  FourBatches all(&stop, 3);
  Training last(dir / "last", 1e-3, {.epochs = 1});
  EXPECT_EQ(last(images, all, stop), Trainer::Outcome::finished);
}

// Otherwise the run would be resumed after an epoch whose weights, the best, are nowhere.
TEST(EngineTrainer, AnEpochWhoseBestWeightsCannotBeSavedIsStillToCome) {
  TempDir dir;
  Training run(dir / "run", 0, {.epochs = 3});
  std::filesystem::create_directory(dir / "run/best.safetensors");
  EXPECT_THROW(run({0}), Error);
  EXPECT_EQ(read_safetensors(dir / "run/last.safetensors").metadata.at("epoch"), "0");
}

}  // namespace
}  // namespace gm
