#include "data/predictions.h"

#include <algorithm>
#include <utility>

#include "data/file_names.h"
#include "data/predictions_formats.h"
#include "kernels/common/error.h"

namespace gm {

int predicted_class(const Prediction& p) {
  return static_cast<int>(std::max_element(p.probabilities.begin(), p.probabilities.end()) -
                          p.probabilities.begin());
}

std::vector<TableColumn> table_columns(const PredictionColumns& columns) {
  using P = Prediction;
  std::vector<TableColumn> all;
  all.push_back(
      {.name = "id_str", .kind = TableColumn::text, .ucd = "meta.id;meta.main", .text_of = [](const P& p) {
         return p.id;
       }});
  if (columns.labels)
    all.push_back({.name = "label",
                   .kind = TableColumn::class_index,
                   .ucd = "src.morph.type",
                   .class_of = [](const P& p) { return p.label; }});
  all.push_back({.name = "class",
                 .kind = TableColumn::class_index,
                 .ucd = "src.morph.type",
                 .class_of = predicted_class});
  all.push_back({.name = "probabilities",
                 .per_class = "p_",
                 .ucd = "stat.probability",
                 .number_of = [](const P& p, size_t c) { return p.probabilities[c]; }});
  if (columns.logits)
    all.push_back({.name = "logits", .per_class = "z_", .digits = 9, .number_of = [](const P& p, size_t c) {
                     return p.logits[c];
                   }});
  if (columns.sky)
    for (const auto& [name, degrees] : {std::pair{"ra", &P::ra}, {"dec", &P::dec}})
      all.push_back({.name = name,
                     .digits = 10,
                     .f64 = true,
                     .unit = "deg",
                     .ucd = std::string("pos.eq.") + name + ";meta.main",
                     .number_of = [degrees = degrees](const P& p, size_t) { return p.*degrees; }});
  if (columns.uncertainty)
    for (const auto& [name, nats] :
         {std::pair{"entropy", &P::entropy}, {"mutual_information", &P::mutual_information}})
      all.push_back({.name = name, .number_of = [nats = nats](const P& p, size_t) { return p.*nats; }});
  return all;
}

std::unique_ptr<PredictionWriter> open_predictions(const std::string& path,
                                                   const std::vector<std::string>& classes,
                                                   const PredictionColumns& columns,
                                                   const std::string& begun) {
  if (is_hdf5_name(path)) return open_hdf5_predictions(path, classes, columns, begun);
  const std::string ext = lower_extension(path);
  if (ext == ".fits") return open_fits_predictions(path, classes, columns, begun);
  if (path != "-" && ext != ".csv") fail(path + ": predictions are written as .csv, .h5 or .fits");
  return open_csv_predictions(path, classes, columns, begun);
}

}  // namespace gm
