#include "tools/training_board.h"

#include <algorithm>

#include "tools/pictures/augmented_picture.h"
#include "tools/pictures/confusion_picture.h"

namespace gm {

TrainingBoard::TrainingBoard(const std::string& folder, int64_t every, Sources sources)
    : every_(every), from_(std::move(sources)), writer_(folder) {
  const size_t all = from_.rows.size(), shown = std::min(all, kSamples);
  for (size_t i = 0; i < shown; ++i) from_.rows[i] = from_.rows[i * all / shown];
  from_.rows.resize(shown);
}

void TrainingBoard::epoch(const EpochMetrics& m, const ConfusionMatrix& confusion) {
  const int64_t step = m.epoch + 1;
  writer_.scalars(step, {{"loss/train", m.train_loss},
                         {"loss/val", m.val_loss},
                         {"accuracy/train", m.train_accuracy},
                         {"accuracy/val", m.val_accuracy},
                         {"learning_rate", m.lr},
                         {"images_per_second", m.images_per_second}});
  if (every_ == 0 || m.epoch % every_ != 0) return;
  std::vector<std::pair<std::string, Histogram>> histograms;
  for (const Parameter& p : from_.table) {
    if (!p.trainable || p.frozen) continue;
    histograms.emplace_back("weights/" + p.name, histogram_of(from_.weights.download(p)));
    histograms.emplace_back("gradients/" + p.name,
                            histogram_of(to_host(from_.device, from_.weights.gradient(p))));
  }
  writer_.histograms(step, histograms);
  writer_.picture(
      step, "training samples",
      augmented_sheet(from_.training, from_.images, from_.rows, from_.seed, static_cast<uint32_t>(m.epoch)));
  writer_.picture(step, "confusion of the validation", confusion_picture(confusion, from_.classes));
}

}  // namespace gm
