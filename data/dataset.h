// Images with ids, labels and, where known, sky positions, whatever file they come from.
#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "data/image.h"

namespace gm {

/// A finite, indexed set of images. Rows are 0 .. size()-1 in the order of the file. All members may be
/// called from several threads at once.
class Dataset {
 public:
  virtual ~Dataset() = default;
  virtual int64_t size() const = 0;
  /// Class names by label; empty for an unlabelled set.
  virtual const std::vector<std::string>& classes() const = 0;
  /// 0 .. classes().size()-1, or -1 when row `i` has no label.
  virtual int label(int64_t i) const = 0;
  /// Whether labelled rows have a soft label: all of them or none.
  virtual bool soft() const { return false; }
  /// Shares of the classes in row `i`, e.g. of votes: classes().size() numbers from 0 to 1 that sum to 1, the
  /// first of the largest that of label(i). Empty for an unlabelled row, and where soft() is false.
  virtual std::span<const float> soft_label(int64_t /*i*/) const { return {}; }
  /// The catalog's identifier; not necessarily unique.
  virtual std::string id(int64_t i) const = 0;
  /// Right ascension and declination in degrees (J2000); false where unknown.
  virtual bool sky(int64_t /*i*/, double& /*ra*/, double& /*dec*/) const { return false; }
  /// Decodes row `i`. Throws gm::Error naming the file (and row) when it cannot be read.
  virtual Image read(int64_t i) const = 0;
  /// Bytes of each decoded image when all have one size that is known without reading them, else 0.
  virtual size_t image_bytes() const { return 0; }
  /// Most memory the set comes to keep for faster reading; images handed out are not in it.
  virtual size_t buffer_bytes() const { return 0; }
  /// Closes files and gives up what is kept for faster reading; the next read() begins anew.
  virtual void release() const {}
  /// The file that holds row `i` and no other; "" where one file holds many.
  virtual std::string file(int64_t /*i*/) const { return ""; }
  /// Where the set comes from, for messages.
  virtual const std::string& path() const = 0;
  /// Where row `i` comes from: of several sets that are joined, the path of its own.
  virtual const std::string& path_of(int64_t /*i*/) const { return path(); }
};

/// The columns ra and dec of a set, in degrees; either may be empty. A value off the sky, such as NaN or
/// -999, stands for a position that is not known.
struct SkyColumns {
  std::vector<double> ra, dec;
  bool at(int64_t i, double& to_ra, double& to_dec) const;  // see Dataset::sky
};

struct OpenOptions {
  /// When set, for a model that knows its classes: label names are looked up here, and a name that is missing
  /// is an error. Integer labels count where the data or this list have no names; they must be below its
  /// size; without either, columns of their names count. Otherwise classes come from the data.
  std::vector<std::string> classes;
  /// False: labels are not read at all, so a catalog of another labelling can be classified.
  bool labels = true;
  /// Decodes the JPEG files of catalogs, folders and single images; null: the processor does.
  std::shared_ptr<JpegDecoder> jpegs;
};

/// Opens what `path` is: .h5/.hdf5 (Galaxy10 layout), .csv (catalog), a folder with labels.csv (catalog), a
/// folder of images (unlabelled, sorted by name), or one image. Throws gm::Error when it is none of these.
std::shared_ptr<Dataset> open_dataset(const std::string& path, const OpenOptions& options = {});

/// True when no class has a name of its own: each is called by its index.
bool only_numbered(const std::vector<std::string>& classes);
/// Throws gm::Error where two classes have one name: `where` is the file that says so.
void check_distinct(const std::string& where, const std::vector<std::string>& classes);
/// Throws gm::Error: the class `name` found at `where` (file, or file and line) is not among `classes`.
[[noreturn]] void fail_unknown_class(const std::string& where, const std::string& name,
                                     const std::vector<std::string>& classes);

/// The ten classes of Galaxy10 DECals (astroNN) in label order, and the five clean Galaxy Zoo classes of S2
/// Table 1.
const std::vector<std::string>& galaxy10_classes();
const std::vector<std::string>& gz5_classes();

}  // namespace gm
