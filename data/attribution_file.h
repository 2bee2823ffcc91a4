// Explanations on their way to disk: an HDF5 file with one row per image.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "data/image.h"

namespace gm {

/// What made one image's class score. Maps are (H, W); empty where not asked for.
struct Explanation {
  std::string id;
  Image image;                          // as the network saw it, (S, S), rounded to 8 bits
  int label = -1, predicted = -1;       // class indices; label -1: unknown
  int explained = -1;                   // the class whose logit was differentiated
  double probability = 0;               // of the predicted class
  float logit = 0;                      // of the explained class
  std::vector<float> saliency, smooth;  // (S, S): max over channels of |d logit / d pixel|
  std::vector<float> cam, cam_map;      // Grad-CAM enlarged to (S, S), and as it is (h, w)
};

struct AttributionShape {
  int size = 0;                       // S
  int cam_height = 0, cam_width = 0;  // (h, w)
  bool saliency = true, smooth = true, cam = true;
};

/// Datasets, one row per image: `id_str`, `images` (N, S, S, 3) uint8, `label` (-1: unknown), `predicted`,
/// `explained` int32, `logit` and, where asked for, `saliency`, `smoothgrad`, `gradcam` (N, S, S) and
/// `gradcam_map` (N, h, w) f32. Attributes: `class_names` and those given. Throws gm::Error when it cannot be
/// written; nothing appears under that name before finish().
class AttributionFile {
 public:
  AttributionFile(const std::string& path, const std::vector<std::string>& classes,
                  const AttributionShape& shape,
                  const std::vector<std::pair<std::string, std::string>>& attributes);
  ~AttributionFile();
  void write(const std::vector<Explanation>& rows);
  void finish();

 private:
  struct Data;
  std::unique_ptr<Data> data_;
};

}  // namespace gm
