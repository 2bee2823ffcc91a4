#include "data/predictions.h"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <optional>

#include "data/csv.h"
#include "data/hdf5_rows.h"
#include "data/image.h"
#include "data/predictions_fits.h"
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
  CsvWriter(const std::string& path, const std::vector<std::string>& classes, PredictionColumns columns,
            const std::string& begun)
      : path_(path), classes_(classes), columns_(columns) {
    if (path != "-") pending_.emplace(path);
    if (!begun.empty()) {
      pending_->copy(begun);
      whole_ = std::filesystem::file_size(pending_->name());
    }
    file_.reset(pending_ ? std::fopen(pending_->name().c_str(), begun.empty() ? "w" : "a") : stdout);
    if (!file_) fail_writing();
    if (!begun.empty()) return;
    std::string header = columns.labels ? "id_str,label,class" : "id_str,class";
    for (const auto& c : classes) header += "," + csv_cell("p_" + c);
    if (columns.logits)
      for (const auto& c : classes) header += "," + csv_cell("z_" + c);
    if (columns.sky) header += ",ra,dec";
    if (columns.uncertainty) header += ",entropy,mutual_information";
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
      if (columns_.sky)
        for (double v : {p.ra, p.dec})
          std::isnan(v) ? text += ","
                        : text.append(number, std::snprintf(number, sizeof number, ",%.10g", v));
      if (columns_.uncertainty)
        for (double v : {p.entropy, p.mutual_information})
          text.append(number, std::snprintf(number, sizeof number, ",%.7g", v));
      text += "\n";
    }
    put(text);
  }
  void finish() override {
    if (std::fflush(file_.get()) != 0) fail_writing();
    if (pending_) pending_->commit();
  }
  void keep(const std::string& path) override {
    file_.reset();  // what is left in its buffer goes to disk or not: it is behind the end
    std::error_code error;
    std::filesystem::resize_file(pending_->name(), whole_, error);
    if (error) fail(path + ": cannot write: " + error.message());
    pending_->commit(path);
  }
  const std::string& flush() override { return pending_->name(); }  // put() does

 private:
  [[noreturn]] void fail_writing() const {
    const int error = errno;
    const std::string what = pending_ ? path_ + ": cannot write" : "cannot write to standard output";
    fail(what + ": " + std::strerror(error));
  }
  void put(const std::string& text) {
    if (std::fwrite(text.data(), 1, text.size(), file_.get()) != text.size() || std::fflush(file_.get()) != 0)
      fail_writing();
    whole_ += text.size();
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
  uintmax_t whole_ = 0;  // bytes of the header and of whole calls of write()
};

class Hdf5Writer : public PredictionWriter {
 public:
  Hdf5Writer(const std::string& path, const std::vector<std::string>& classes, PredictionColumns columns,
             const std::string& begun)
      : file_(path, begun), columns_(columns) {
    h5::Lock lock;
    ids_ = file_.add_text("id_str");
    class_ = file_.add("class", H5T_NATIVE_INT32);
    probabilities_ = file_.add("probabilities", H5T_NATIVE_FLOAT, {classes.size()});
    if (columns.labels) label_ = file_.add("label", H5T_NATIVE_INT32);
    if (columns.logits) logits_ = file_.add("logits", H5T_NATIVE_FLOAT, {classes.size()});
    if (columns.sky) ra_ = file_.add("ra", H5T_NATIVE_DOUBLE), dec_ = file_.add("dec", H5T_NATIVE_DOUBLE);
    if (columns.uncertainty) {
      entropy_ = file_.add("entropy", H5T_NATIVE_FLOAT);
      mutual_information_ = file_.add("mutual_information", H5T_NATIVE_FLOAT);
    }
    file_.attribute("class_names", classes);
  }
  void write(const std::vector<Prediction>& rows) override {
    h5::Lock lock;
    whole_ = false;
    std::vector<std::string> ids;
    std::vector<int32_t> classes, labels;
    std::vector<float> p, z, entropy, mutual_information;
    std::vector<double> ra, dec;
    for (const Prediction& r : rows) {
      ids.push_back(r.id);
      classes.push_back(predicted_class(r));
      labels.push_back(r.label);
      for (double v : r.probabilities) p.push_back(static_cast<float>(v));
      z.insert(z.end(), r.logits.begin(), r.logits.end());
      ra.push_back(r.ra);
      dec.push_back(r.dec);
      entropy.push_back(static_cast<float>(r.entropy));
      mutual_information.push_back(static_cast<float>(r.mutual_information));
    }
    file_.append(ids_, ids);
    file_.append(class_, H5T_NATIVE_INT32, rows.size(), classes.data());
    file_.append(probabilities_, H5T_NATIVE_FLOAT, rows.size(), p.data());
    if (columns_.labels) file_.append(label_, H5T_NATIVE_INT32, rows.size(), labels.data());
    if (columns_.logits) file_.append(logits_, H5T_NATIVE_FLOAT, rows.size(), z.data());
    if (columns_.sky) {
      file_.append(ra_, H5T_NATIVE_DOUBLE, rows.size(), ra.data());
      file_.append(dec_, H5T_NATIVE_DOUBLE, rows.size(), dec.data());
    }
    if (columns_.uncertainty) {
      file_.append(entropy_, H5T_NATIVE_FLOAT, rows.size(), entropy.data());
      file_.append(mutual_information_, H5T_NATIVE_FLOAT, rows.size(), mutual_information.data());
    }
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
  h5::RowFile file_;
  PredictionColumns columns_;
  int ids_, class_, probabilities_, label_ = -1, logits_ = -1;
  int ra_ = -1, dec_ = -1, entropy_ = -1, mutual_information_ = -1;
  bool whole_ = true;  // every column has all rows, and the file is open
};

}  // namespace

std::unique_ptr<PredictionWriter> open_predictions(const std::string& path,
                                                   const std::vector<std::string>& classes,
                                                   PredictionColumns columns, const std::string& begun) {
  if (is_hdf5_name(path)) return std::make_unique<Hdf5Writer>(path, classes, columns, begun);
  const std::string ext = lower_extension(path);
  if (ext == ".fits") return open_fits_predictions(path, classes, columns, begun);
  if (path != "-" && ext != ".csv") fail(path + ": predictions are written as .csv, .h5 or .fits");
  return std::make_unique<CsvWriter>(path, classes, columns, begun);
}

}  // namespace gm
