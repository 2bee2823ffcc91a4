// Predictions as a FITS binary table, through CFITSIO.
#include "data/predictions_formats.h"
#include "kernels/common/error.h"

#ifdef GM_WITH_CFITSIO
#include <fitsio.h>

#include <algorithm>
#include <cctype>
#include <set>
#include <utility>

#include "engine/atomic_file.h"

namespace gm {

namespace {

std::string ascii(std::string text) {
  for (char& c : text)
    if (c < 32 || c > 126) c = '_';
  return text;
}

class FitsWriter : public PredictionWriter {
 public:
  FitsWriter(const std::string& path, const std::vector<std::string>& classes,
             const PredictionColumns& columns, const std::string& begun)
      : path_(path),
        pending_(path),
        columns_(table_columns(columns)),
        id_bytes_(std::max<size_t>(1, columns.id_bytes)) {
    size_t class_bytes = 1;
    for (const auto& c : classes) {
      classes_.push_back(ascii(c));
      class_bytes = std::max(class_bytes, c.size());
    }
    for (const TableColumn& c : columns_) {
      const std::string form = c.kind == TableColumn::text          ? std::to_string(id_bytes_) + "A"
                               : c.kind == TableColumn::class_index ? std::to_string(class_bytes) + "A"
                               : c.f64                              ? "1D"
                                                                    : "1E";
      if (c.per_class.empty())
        declare(c.name, form, c);
      else
        for (const std::string& name : classes_) declare(c.per_class + name, form, c);
    }
    begun.empty() ? create(columns.sky) : go_on(begun);
  }
  ~FitsWriter() override {
    int status = 0;
    if (file_) fits_close_file(file_, &status);  // the pending file goes with it
  }

  void write(const std::vector<Prediction>& rows) override {
    const size_t n = rows.size();
    if (n == 0) return;
    whole_ = false;
    int column = 0;
    for (const TableColumn& c : columns_) switch (c.kind) {
        case TableColumn::text:
          texts(++column, n, [&](size_t i) {
            const std::string text = c.text_of(rows[i]);
            if (text.size() > id_bytes_) fail(path_ + ": id '" + text + "' is longer than expected");
            return ascii(text);
          });
          break;
        case TableColumn::class_index:
          texts(++column, n, [&](size_t i) {
            const int k = c.class_of(rows[i]);
            return k < 0 ? "" : classes_[k];
          });
          break;
        case TableColumn::number:
          for (size_t k = 0; k < c.width(classes_.size()); ++k)
            numbers(++column, n, [&](size_t i) { return c.number_of(rows[i], k); });
      }
    done_ += static_cast<LONGLONG>(n);
    whole_ = true;
  }

  void finish() override {
    close();
    pending_.commit();
  }
  void keep(const std::string& path) override {
    if (!whole_) fail(path + ": cannot write: not all columns have the same rows");
    close();
    pending_.commit(path);
  }
  const std::string& flush() override {
    fits_flush_file(file_, &status_);
    check();
    return pending_.name();
  }

 private:
  void close() {
    whole_ = false;
    fits_write_chksum(file_, &status_);
    fitsfile* file = std::exchange(file_, nullptr);
    int closed = 0;
    fits_close_file(file, &closed);
    if (status_ == 0) status_ = closed;
    check();
  }

  void declare(const std::string& name, const std::string& form, const TableColumn& column) {
    std::string key = name;
    std::transform(key.begin(), key.end(), key.begin(), [](unsigned char c) { return std::tolower(c); });
    if (!keys_.insert(key).second)
      fail(path_ + ": two columns would be called '" + name + "' (FITS ignores case and accents)");
    names_.push_back(name);
    forms_.push_back(form);
    units_.push_back(column.unit);
    ucds_.push_back(column.ucd);
  }

  void create(bool sky) {
    auto pointers = [](std::vector<std::string>& list) {
      std::vector<char*> p;
      for (auto& s : list) p.push_back(s.data());
      return p;
    };
    auto names = pointers(names_), forms = pointers(forms_), units = pointers(units_);
    // Not fits_create_file: that one gives brackets and other signs in file names a meaning.
    fits_create_diskfile(&file_, pending_.name().c_str(), &status_);
    fits_create_tbl(file_, BINARY_TBL, 0, static_cast<int>(names.size()), names.data(), forms.data(),
                    units.data(), "PREDICTIONS", &status_);
    for (size_t i = 0; i < ucds_.size(); ++i)
      if (!ucds_[i].empty())
        fits_update_key_str(file_, ("TUCD" + std::to_string(i + 1)).c_str(), ucds_[i].c_str(), "", &status_);
    if (sky) fits_update_key_str(file_, "RADESYS", "ICRS", "ra and dec as in the catalog", &status_);
    fits_write_date(file_, &status_);
    check();
  }

  void go_on(const std::string& begun) {
    pending_.copy(begun);
    fits_open_diskfile(&file_, pending_.name().c_str(), READWRITE, &status_);
    fits_movabs_hdu(file_, 2, nullptr, &status_);
    fits_get_num_rowsll(file_, &done_, &status_);
    check();
  }

  template <class Text>
  void texts(int column, size_t n, Text&& text) {
    std::vector<std::string> list;
    for (size_t i = 0; i < n; ++i) list.push_back(text(i));
    std::vector<char*> pointers;
    for (auto& s : list) pointers.push_back(s.data());
    fits_write_col(file_, TSTRING, column, done_ + 1, 1, static_cast<LONGLONG>(n), pointers.data(), &status_);
    check();
  }
  template <class Value>
  void numbers(int column, size_t n, Value&& value) {
    std::vector<double> list;
    for (size_t i = 0; i < n; ++i) list.push_back(value(i));
    fits_write_col(file_, TDOUBLE, column, done_ + 1, 1, static_cast<LONGLONG>(n), list.data(), &status_);
    check();
  }

  void check() {
    if (status_ == 0) return;
    char text[FLEN_STATUS] = "";
    fits_get_errstatus(status_, text);
    fits_clear_errmsg();
    fail(path_ + ": cannot write: " + text + " (CFITSIO " + std::to_string(status_) + ")");
  }

  std::string path_;
  PendingFile pending_;
  std::vector<TableColumn> columns_;
  size_t id_bytes_;
  std::vector<std::string> classes_, names_, forms_, units_, ucds_;
  std::set<std::string> keys_;
  fitsfile* file_ = nullptr;
  int status_ = 0;
  LONGLONG done_ = 0;
  bool whole_ = true;  // every column has `done_` rows, and the file is open
};

}  // namespace

std::unique_ptr<PredictionWriter> open_fits_predictions(const std::string& path,
                                                        const std::vector<std::string>& classes,
                                                        const PredictionColumns& columns,
                                                        const std::string& begun) {
  return std::make_unique<FitsWriter>(path, classes, columns, begun);
}

}  // namespace gm

#else

namespace gm {

std::unique_ptr<PredictionWriter> open_fits_predictions(const std::string& path,
                                                        const std::vector<std::string>&,
                                                        const PredictionColumns&, const std::string&) {
  fail(path + ": this program was built without CFITSIO; install libcfitsio-dev and build again");
}

}  // namespace gm

#endif
