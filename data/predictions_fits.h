// Predictions as a FITS binary table, through CFITSIO.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "data/predictions.h"

namespace gm {

/// The first extension, PREDICTIONS, has a row per image: id_str (text), [label,] class (text),
/// p_<class>... (f32) and, if asked for, z_<class>... (f32), ra, dec (f64, deg, NaN where unknown, with
/// UCDs), entropy and mutual_information (f32, nats). FITS text is ASCII: other bytes of names and ids become
/// "_". Rows go to disk as they come. Throws gm::Error when the file cannot be written, an id is longer than
/// columns.id_bytes, two columns would have one name, or the program was built without CFITSIO.
std::unique_ptr<PredictionWriter> open_fits_predictions(const std::string& path,
                                                        const std::vector<std::string>& classes,
                                                        PredictionColumns columns, const std::string& begun);

}  // namespace gm
