// What the writers of predictions have in common: the columns of a table, and who writes which kind of file.
// For predictions.cpp.
#pragma once
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "data/predictions.h"

namespace gm {

/// One column of a table, or, where CSV and FITS have a column for each class, those together: HDF5 has one
/// dataset (N, C) instead.
struct TableColumn {
  std::string name;
  enum Kind { text, class_index, number } kind = number;
  std::string per_class;  // what the names of the columns of the classes begin with; empty: one column
  int digits = 7;         // significant ones in CSV
  bool f64 = false;       // f32 otherwise
  std::string unit, ucd;  // of FITS
  // By kind. A class index below 0 and a number that is NaN are unknown; `number_of` is asked for class `c`
  // where there is one for each.
  std::function<std::string(const Prediction&)> text_of;
  std::function<int(const Prediction&)> class_of;
  std::function<double(const Prediction&, size_t c)> number_of;
  /// Numbers in a row.
  size_t width(size_t classes) const { return per_class.empty() ? 1 : classes; }
};

/// In their order in a row.
std::vector<TableColumn> table_columns(const PredictionColumns& columns);

/// As open_predictions. A table of CSV: "-" is standard output.
std::unique_ptr<PredictionWriter> open_csv_predictions(const std::string& path,
                                                       const std::vector<std::string>& classes,
                                                       const PredictionColumns& columns,
                                                       const std::string& begun);
std::unique_ptr<PredictionWriter> open_hdf5_predictions(const std::string& path,
                                                        const std::vector<std::string>& classes,
                                                        const PredictionColumns& columns,
                                                        const std::string& begun);
/// The first extension, PREDICTIONS, is a binary table with units and UCDs. FITS text is ASCII: other bytes
/// of names and ids become "_". Rows go to disk as they come. Throws gm::Error also when an id is longer than
/// columns.id_bytes, two columns would have one name, or the program was built without CFITSIO.
std::unique_ptr<PredictionWriter> open_fits_predictions(const std::string& path,
                                                        const std::vector<std::string>& classes,
                                                        const PredictionColumns& columns,
                                                        const std::string& begun);

}  // namespace gm
