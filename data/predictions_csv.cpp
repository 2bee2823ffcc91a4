// Predictions as CSV: names in place of class indices, an empty cell for what is unknown.
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <optional>

#include "data/csv.h"
#include "data/predictions_formats.h"
#include "engine/atomic_file.h"
#include "kernels/common/error.h"

namespace gm {

namespace {

class CsvWriter : public PredictionWriter {
 public:
  CsvWriter(const std::string& path, const std::vector<std::string>& classes,
            const PredictionColumns& columns, const std::string& begun)
      : path_(path), classes_(classes), columns_(table_columns(columns)) {
    if (path != "-") pending_.emplace(path);
    if (!begun.empty()) {
      pending_->copy(begun);
      whole_ = std::filesystem::file_size(pending_->name());
    }
    file_.reset(pending_ ? std::fopen(pending_->name().c_str(), begun.empty() ? "w" : "a") : stdout);
    if (!file_) fail_writing();
    if (begun.empty()) put(header());
  }
  void write(const std::vector<Prediction>& rows) override {
    std::string text;
    for (const Prediction& row : rows) {
      for (const TableColumn& c : columns_) append(text, c, row);
      text.back() = '\n';
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
  std::string header() const {
    std::string text;
    for (const TableColumn& c : columns_) {
      if (c.per_class.empty())
        text += c.name + ",";
      else
        for (const std::string& name : classes_) text += csv_cell(c.per_class + name) + ",";
    }
    text.back() = '\n';
    return text;
  }
  // The cells of a column, each with its comma.
  void append(std::string& text, const TableColumn& c, const Prediction& row) const {
    switch (c.kind) {
      case TableColumn::text:
        text += csv_cell(c.text_of(row)) + ",";
        break;
      case TableColumn::class_index: {
        const int k = c.class_of(row);
        text += (k < 0 ? "" : csv_cell(classes_[k])) + ",";
        break;
      }
      case TableColumn::number:
        for (size_t k = 0; k < c.width(classes_.size()); ++k) {
          const double value = c.number_of(row, k);
          char number[32];
          if (!std::isnan(value))
            text.append(number, std::snprintf(number, sizeof number, "%.*g", c.digits, value));
          text += ",";
        }
    }
  }
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
  std::vector<TableColumn> columns_;
  std::optional<PendingFile> pending_;
  std::unique_ptr<FILE, Close> file_;
  uintmax_t whole_ = 0;  // bytes of the header and of whole calls of write()
};

}  // namespace

std::unique_ptr<PredictionWriter> open_csv_predictions(const std::string& path,
                                                       const std::vector<std::string>& classes,
                                                       const PredictionColumns& columns,
                                                       const std::string& begun) {
  return std::make_unique<CsvWriter>(path, classes, columns, begun);
}

}  // namespace gm
