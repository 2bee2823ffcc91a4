// Training of a tiny network on a device, from images of several sizes.
#pragma once
#include <numeric>

#include "data/loader.h"
#include "engine/optimizer.h"
#include "engine/trainer.h"
#include "layers/network.h"
#include "layers/rewrites.h"
#include "tests/data_test_util.h"

namespace gm::test {

/// Images of several sizes, the largest in the validation set: batches come to need more room when steps have
/// long been captured.
class MixedDataset : public FakeDataset {
 public:
  explicit MixedDataset(bool soft) : FakeDataset(30, 3) {
    for (int64_t i = 0; soft && i < 30; ++i)
      for (int64_t k = 0; k < 3; ++k) soft_labels.push_back(k == i % 3 ? 0.75f : 0.125f);
  }
  Image read(int64_t i) const override {
    const int k = static_cast<int>(i), scale = k < 24 ? 1 : 2;
    return gradient(scale * (20 + 7 * (k % 5)), scale * (18 + 5 * (k % 3)), 8 * k);
  }
};

inline constexpr int64_t kBatch = 4, kTraining = 24, kSteps = kTraining / kBatch, kValidation = 2,
                         kEpochs = 3;

inline Architecture small_network() {
  Architecture a;
  a.classes = 3;
  a.input_size = 16;
  a.mean = {127.5, 120, 130};
  a.std = {60, 55, 50};
  a.stem_filters = 8;
  a.stages = {{.block = BlockType::mbconv, .expand = 1, .filters = 8, .layers = 2},
              {.block = BlockType::mbconv,
               .expand = 3,
               .kernel = 5,
               .stride = 2,
               .filters = 12,
               .layers = 2,
               .se = 0.25}};
  a.head_filters = 20;
  a.dropout = 0.3;
  a.stochastic_depth = 0.3;
  return a;
}

struct TrainingOptions {
  DType dtype = DType::f32;
  double lr = 1e-2;
  int64_t accumulate = 1;
  int64_t epochs = kEpochs;
  double mixup = 0, cutmix = 0;
  bool soft = false;
};

/// A training run on a device; with `pool` the device augments.
struct Training {
  Training(Device& device, ImagePool* pool, const std::string& folder, const TrainingOptions& o = {})
      : loading{.batch = kBatch,
                .group = o.accumulate,
                .transform = TransformConfig::gz(16),
                .training = true,
                .seed = 4,
                .workers = 2,
                .device_images = pool},
        data(std::make_shared<MixedDataset>(o.soft)) {
    BuildOptions build{.batch = kBatch,
                       .training = true,
                       .dtype = o.dtype,
                       .augmented = pool != nullptr,
                       .soft_labels = o.soft,
                       .mixup = o.mixup,
                       .cutmix = o.cutmix};
    NetworkGraph train_graph = fuse_for_training(build_network(small_network(), table, build));
    build.training = false;
    folded = std::make_unique<FoldedNetwork>(build_network(small_network(), table, build));
    if (pool) folded->net.augment.set("colour", 0);
    const bool half = o.dtype == DType::bf16;
    weights = std::make_unique<Weights>(device, table, half, true);
    weights->initialize(table, 5);
    eval_weights = std::make_unique<Weights>(device, folded->table, half, false);
    TrainerConfig config;
    config.epochs = o.epochs;
    config.checkpoint_steps = 4 / o.accumulate;
    config.seed = 9;
    config.images = pool;
    config.out_dir = folder;
    std::filesystem::create_directories(folder);
    trainer = std::make_unique<Trainer>(
        device, train_graph, folded->net, table, *weights, *eval_weights,
        [this] { folded->refresh(table, *weights, *eval_weights); },
        OptimizerConfig{
            .lr = o.lr, .weight_decay = 0.01, .clip_norm = 1, .accumulate = o.accumulate, .average = 0.9},
        ScheduleConfig{.kind = ScheduleConfig::cosine}, config);
  }
  /// Stops after so many steps; 0: runs to the end.
  Trainer::Outcome train(int64_t steps = 0) {
    std::vector<int64_t> rows(30);
    std::iota(rows.begin(), rows.end(), 0);
    Loader training(data, {rows.begin(), rows.begin() + kTraining}, loading);
    loading.training = false;
    Loader validation(data, {rows.begin() + kTraining, rows.end()}, loading);
    loading.training = true;
    std::atomic<bool> stop{false};
    TrainerEvents events;
    events.on_step = [&](const TrainerEvents::Step&) { stop = steps > 0 && trainer->step() >= steps; };
    return trainer->run(training, validation, events, stop);
  }

  ParameterTable table;
  LoaderConfig loading;
  std::shared_ptr<const Dataset> data;
  std::unique_ptr<FoldedNetwork> folded;
  std::unique_ptr<Weights> weights, eval_weights;
  std::unique_ptr<Trainer> trainer;
};

}  // namespace gm::test
