// Data sets whose images are single files: catalogs, folders and lists.
#pragma once
#include <string>
#include <vector>

#include "data/dataset.h"
#include "data/soft_labels.h"

namespace gm {

/// Images of given paths, unlabelled, in the given order; the id is the file name without extension
/// (bytes that are not UTF-8 as %E9).
class FileListDataset : public Dataset {
 public:
  FileListDataset(std::string name, std::vector<std::string> files, const OpenOptions& options = {})
      : name_(std::move(name)), files_(std::move(files)), jpegs_(options.jpegs) {}
  int64_t size() const override { return static_cast<int64_t>(files_.size()); }
  const std::vector<std::string>& classes() const override { return classes_; }
  int label(int64_t) const override { return -1; }
  std::string id(int64_t i) const override;
  Image read(int64_t i) const override { return read_image(files_[i], jpegs_.get()); }
  std::string file(int64_t i) const override { return files_[i]; }
  const std::string& path() const override { return name_; }

 protected:
  std::string name_;
  std::vector<std::string> files_, classes_;

 private:
  std::shared_ptr<JpegDecoder> jpegs_;
};

/// All JPEG and PNG files of one folder (not of its subfolders), sorted by name. Throws when there is none.
class FolderDataset : public FileListDataset {
 public:
  explicit FolderDataset(const std::string& folder, const OpenOptions& options = {});
};

/// A CSV of the kind zoobot users have. Columns: `id_str` and/or `file_loc` (relative paths resolve against
/// the CSV's folder; without it images/<id_str>.jpg, .jpeg or .png), `label` (class index or class name; -1
/// is unlabelled), `class` (class name; in the place of `label` where that is not there or empty),
/// `ra`, `dec` or RA, DEC (degrees). Empty cells of these four, `nan`, `NaN`, `null`, `NULL` and `--` are
/// missing. All but one of id_str and file_loc are optional; others are ignored; an id may occur more than
/// once. Class names: options.classes; else from `class` where it goes with integer labels (indices without
/// one are called by their number); else, for labels that are names, the names sorted; else the numbers. With
/// options.classes and neither `label` nor `class`: a column for each class, with the shares of the row's
/// votes, or 1 in that of its class.
class CatalogDataset : public FileListDataset {
 public:
  explicit CatalogDataset(const std::string& csv, const OpenOptions& options = {});
  int label(int64_t i) const override { return labels_[i]; }
  bool soft() const override { return !soft_.empty(); }
  std::span<const float> soft_label(int64_t i) const override { return soft_.row(i); }
  std::string id(int64_t i) const override { return ids_[i]; }
  bool sky(int64_t i, double& ra, double& dec) const override { return sky_.at(i, ra, dec); }

 private:
  std::vector<std::string> ids_;
  std::vector<int> labels_;
  SoftLabels soft_;
  SkyColumns sky_;  // NaN where the cell is empty
};

}  // namespace gm
