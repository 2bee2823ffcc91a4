// Predictions as HDF5: a dataset for each column, class indices with the names in an attribute.
#include "data/hdf5_rows.h"
#include "data/predictions_formats.h"
#include "kernels/common/error.h"

namespace gm {

namespace {

class Hdf5Writer : public PredictionWriter {
 public:
  Hdf5Writer(const std::string& path, const std::vector<std::string>& classes,
             const PredictionColumns& columns, const std::string& begun)
      : file_(path, begun), columns_(table_columns(columns)), classes_(classes.size()) {
    h5::Lock lock;
    for (const TableColumn& c : columns_) sets_.push_back(add(c));
    file_.attribute("class_names", classes);
  }
  void write(const std::vector<Prediction>& rows) override {
    h5::Lock lock;
    whole_ = false;
    for (size_t i = 0; i < columns_.size(); ++i) append(sets_[i], columns_[i], rows);
    whole_ = true;
  }
  void finish() override {
    whole_ = false;
    file_.finish();
  }
  void keep(const std::string& path) override {
    if (!whole_) fail(path + ": cannot write: not all columns have the same rows");
    file_.finish(path);
  }
  const std::string& flush() override { return file_.flush(); }

 private:
  int add(const TableColumn& c) {
    switch (c.kind) {
      case TableColumn::text:
        return file_.add_text(c.name);
      case TableColumn::class_index:
        return file_.add(c.name, H5T_NATIVE_INT32);
      case TableColumn::number:
        break;
    }
    return file_.add(c.name, c.f64 ? H5T_NATIVE_DOUBLE : H5T_NATIVE_FLOAT,
                     c.per_class.empty() ? std::vector<hsize_t>{} : std::vector<hsize_t>{classes_});
  }
  void append(int set, const TableColumn& c, const std::vector<Prediction>& rows) {
    switch (c.kind) {
      case TableColumn::text: {
        std::vector<std::string> texts;
        for (const Prediction& row : rows) texts.push_back(c.text_of(row));
        return file_.append(set, texts);
      }
      case TableColumn::class_index: {
        std::vector<int32_t> indices;
        for (const Prediction& row : rows) indices.push_back(c.class_of(row));
        return file_.append(set, H5T_NATIVE_INT32, rows.size(), indices.data());
      }
      case TableColumn::number: {
        std::vector<double> numbers;  // f32 in the file where the dataset is
        for (const Prediction& row : rows)
          for (size_t k = 0; k < c.width(classes_); ++k) numbers.push_back(c.number_of(row, k));
        return file_.append(set, H5T_NATIVE_DOUBLE, rows.size(), numbers.data());
      }
    }
  }

  h5::RowFile file_;
  std::vector<TableColumn> columns_;
  size_t classes_;
  std::vector<int> sets_;  // of the columns
  bool whole_ = true;      // every column has all rows, and the file is open
};

}  // namespace

std::unique_ptr<PredictionWriter> open_hdf5_predictions(const std::string& path,
                                                        const std::vector<std::string>& classes,
                                                        const PredictionColumns& columns,
                                                        const std::string& begun) {
  return std::make_unique<Hdf5Writer>(path, classes, columns, begun);
}

}  // namespace gm
