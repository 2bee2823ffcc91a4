#include "data/predictions.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <optional>

#include "data/csv.h"
#include "data/hdf5_util.h"
#include "engine/atomic_file.h"
#include "kernels/common/error.h"

namespace gm {

int predicted_class(const Prediction& p) {
  return static_cast<int>(std::max_element(p.probabilities.begin(), p.probabilities.end()) -
                          p.probabilities.begin());
}

namespace {

class CsvWriter : public PredictionWriter {
 public:
  CsvWriter(const std::string& path, const std::vector<std::string>& classes, PredictionColumns columns)
      : path_(path), classes_(classes), columns_(columns) {
    if (path != "-") pending_.emplace(path);
    file_.reset(pending_ ? std::fopen(pending_->name().c_str(), "w") : stdout);
    if (!file_) fail(path + ": cannot write: " + std::strerror(errno));
    std::string header = columns.labels ? "id_str,label,class" : "id_str,class";
    for (const auto& c : classes) header += "," + csv_cell("p_" + c);
    if (columns.logits)
      for (const auto& c : classes) header += "," + csv_cell("z_" + c);
    put(header + "\n");
  }
  void write(const std::vector<Prediction>& rows) override {
    std::string text;
    char number[32];
    for (const Prediction& p : rows) {
      text += csv_cell(p.id) + ",";
      if (columns_.labels) text += (p.label < 0 ? "" : csv_cell(classes_[p.label])) + ",";
      text += csv_cell(classes_[predicted_class(p)]);
      for (double v : p.probabilities) text.append(number, std::snprintf(number, sizeof number, ",%.7g", v));
      if (columns_.logits)
        for (float v : p.logits) text.append(number, std::snprintf(number, sizeof number, ",%.9g", v));
      text += "\n";
    }
    put(text);
  }
  void finish() override {
    if (std::fflush(file_.get()) != 0) fail(path_ + ": cannot write: " + std::strerror(errno));
    if (pending_) pending_->commit();
  }

 private:
  void put(const std::string& text) {
    if (std::fwrite(text.data(), 1, text.size(), file_.get()) != text.size() || std::fflush(file_.get()) != 0)
      fail(path_ + ": cannot write: " + std::strerror(errno));
  }
  struct Close {
    void operator()(FILE* file) const {
      if (file != stdout) std::fclose(file);
    }
  };
  std::string path_;
  std::vector<std::string> classes_;
  PredictionColumns columns_;
  std::optional<PendingFile> pending_;
  std::unique_ptr<FILE, Close> file_;
};

class Hdf5Writer : public PredictionWriter {
 public:
  Hdf5Writer(const std::string& path, const std::vector<std::string>& classes, PredictionColumns columns)
      : path_(path), pending_(path), count_(classes.size()) {
    h5::Lock lock;
    file_ = h5::Handle(H5Fcreate(pending_.name().c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT), H5Fclose);
    if (!file_.ok()) fail(path + ": cannot write: " + h5::reason());
    text_ = h5::Handle(H5Tcopy(H5T_C_S1), H5Tclose);
    H5Tset_size(text_, H5T_VARIABLE);
    H5Tset_cset(text_, H5T_CSET_UTF8);
    ids_ = growing("id_str", text_, 0);
    class_ = growing("class", H5T_NATIVE_INT32, 0);
    probabilities_ = growing("probabilities", H5T_NATIVE_FLOAT, count_);
    if (columns.labels) label_ = growing("label", H5T_NATIVE_INT32, 0);
    if (columns.logits) logits_ = growing("logits", H5T_NATIVE_FLOAT, count_);
    std::vector<const char*> names;
    for (const auto& c : classes) names.push_back(c.c_str());
    const hsize_t n = names.size();
    h5::Handle space(H5Screate_simple(1, &n, nullptr), H5Sclose);
    h5::Handle attribute(H5Acreate2(file_, "class_names", text_, space, H5P_DEFAULT, H5P_DEFAULT), H5Aclose);
    check(H5Awrite(attribute, text_, names.data()));
  }
  ~Hdf5Writer() override {
    h5::Lock lock;
    for (h5::Handle* h : {&ids_, &label_, &class_, &probabilities_, &logits_, &text_}) h->reset();
    file_.reset();
  }
  void write(const std::vector<Prediction>& rows) override {
    h5::Lock lock;
    std::vector<const char*> ids;
    std::vector<int32_t> classes, labels;
    std::vector<float> p, z;
    for (const Prediction& r : rows) {
      ids.push_back(r.id.c_str());
      classes.push_back(predicted_class(r));
      labels.push_back(r.label);
      for (double v : r.probabilities) p.push_back(static_cast<float>(v));
      z.insert(z.end(), r.logits.begin(), r.logits.end());
    }
    append(ids_, text_, 0, rows.size(), ids.data());
    append(class_, H5T_NATIVE_INT32, 0, rows.size(), classes.data());
    append(probabilities_, H5T_NATIVE_FLOAT, count_, rows.size(), p.data());
    if (label_.ok()) append(label_, H5T_NATIVE_INT32, 0, rows.size(), labels.data());
    if (logits_.ok()) append(logits_, H5T_NATIVE_FLOAT, count_, rows.size(), z.data());
    written_ += rows.size();
  }
  void finish() override {
    {
      h5::Lock lock;
      for (h5::Handle* h : {&ids_, &label_, &class_, &probabilities_, &logits_, &text_}) h->reset();
      if (!file_.reset()) fail(path_ + ": cannot write: " + h5::reason());
    }
    pending_.commit();
  }

 private:
  void check(herr_t status) const {
    if (status < 0) fail(path_ + ": cannot write: " + h5::reason());
  }
  // columns 0: a vector.
  h5::Handle growing(const char* name, hid_t type, hsize_t columns) {
    const int rank = columns ? 2 : 1;
    const hsize_t start[] = {0, columns}, limit[] = {H5S_UNLIMITED, columns}, chunk[] = {4096, columns};
    h5::Handle space(H5Screate_simple(rank, start, limit), H5Sclose);
    h5::Handle properties(H5Pcreate(H5P_DATASET_CREATE), H5Pclose);
    check(H5Pset_chunk(properties, rank, chunk));
    h5::Handle set(H5Dcreate2(file_, name, type, space, H5P_DEFAULT, properties, H5P_DEFAULT), H5Dclose);
    if (!set.ok()) fail(path_ + ": cannot write: " + h5::reason());
    return set;
  }
  void append(const h5::Handle& set, hid_t type, hsize_t columns, hsize_t rows, const void* data) {
    if (rows == 0) return;
    const int rank = columns ? 2 : 1;
    const hsize_t size[] = {written_ + rows, columns}, at[] = {written_, 0}, count[] = {rows, columns};
    check(H5Dset_extent(set, size));
    h5::Handle file_space(H5Dget_space(set), H5Sclose),
        memory(H5Screate_simple(rank, count, nullptr), H5Sclose);
    check(H5Sselect_hyperslab(file_space, H5S_SELECT_SET, at, nullptr, count, nullptr));
    check(H5Dwrite(set, type, memory, file_space, H5P_DEFAULT, data));
  }

  std::string path_;
  PendingFile pending_;
  hsize_t count_, written_ = 0;
  h5::Handle file_, text_, ids_, label_, class_, probabilities_, logits_;
};

}  // namespace

std::unique_ptr<PredictionWriter> open_predictions(const std::string& path,
                                                   const std::vector<std::string>& classes,
                                                   PredictionColumns columns) {
  if (path.ends_with(".h5") || path.ends_with(".hdf5"))
    return std::make_unique<Hdf5Writer>(path, classes, columns);
  if (path != "-" && !path.ends_with(".csv")) fail(path + ": predictions are written as .csv or .h5");
  return std::make_unique<CsvWriter>(path, classes, columns);
}

}  // namespace gm
