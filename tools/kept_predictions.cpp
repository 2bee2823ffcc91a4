#include "tools/kept_predictions.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "kernels/common/clock.h"
#include "kernels/common/error.h"

namespace gm {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

namespace {

/// FNV-1a with 64 bits: tells things apart that somebody mixed up, not what somebody forged.
class Mark {
 public:
  void add(const void* bytes, size_t size) {
    for (size_t i = 0; i < size; ++i)
      hash_ = (hash_ ^ static_cast<const unsigned char*>(bytes)[i]) * 1099511628211ull;
  }
  void add(const std::string& text) { add(text.c_str(), text.size() + 1); }
  std::string text() const { return fmt::format("{:016x}", hash_); }

 private:
  uint64_t hash_ = 14695981039346656037ull;
};

}  // namespace

std::string mark_of(const ModelFile& model) {
  Mark mark;
  for (const auto& [key, value] : model.tensors.metadata) mark.add(key), mark.add(value);
  for (const auto& [name, tensor] : model.tensors.tensors) {
    mark.add(name);
    mark.add(tensor.bytes.data(), tensor.bytes.size());
  }
  return mark.text();
}

std::string mark_of(const Dataset& data) {
  Mark mark;
  for (int64_t i = 0; i < data.size(); ++i) {
    mark.add(data.id(i));
    double at[2];
    if (data.sky(i, at[0], at[1])) mark.add(at, sizeof at);
    if (data.file(i).empty()) mark.add(fs::path(data.path_of(i)).filename().string());
  }
  return mark.text();
}

std::string partial_file(const std::string& out) {
  if (out == "-") return "";
  const fs::path p(written_file(out));
  return (p.parent_path() / (p.stem().string() + ".partial" + p.extension().string())).string();
}

void check_partial(const std::string& out, bool resume) {
  const std::string partial = partial_file(out);
  std::error_code none;
  const bool there = !partial.empty() && fs::exists(partial, none);
  if (resume && !there) fail(partial + ": is not there to resume from");
  if (!resume && there)
    fail(partial +
         ": holds the rows of a run that did not end; continue it with --resume, or remove the file");
}

KeptPredictions::KeptPredictions(const std::string& out, const std::vector<std::string>& classes,
                                 PredictionColumns columns, Options options)
    : partial_(partial_file(out)),
      record_file_(partial_.empty() ? "" : partial_ + ".json"),
      options_(std::move(options)) {
  if (options_.resume) read_record();
  images_ = saved_ = first_;
  writer_ = open_predictions(out, classes, columns, options_.resume ? partial_ : "");
  next_save_ = seconds_now() + options_.save_every;
  if (partial_.empty()) return;
  room_.emplace(record_file_);
  write_file_atomic(room_->name(), record(0));
}

void KeptPredictions::read_record() {
  const std::string others = "; resume it as it was begun, or remove the file";
  const std::string text = read_file(record_file_);
  try {
    const Json record = Json::parse(text), &run = record.at("run");
    for (const auto& [name, value] : options_.traits) {
      const std::string was = run.value(name, "not set");
      if (was == value) continue;
      if (name == "model") fail(partial_ + ": is of another model" + others);
      if (name == "images") fail(partial_ + ": is of other images, or of another order of them" + others);
      fail(fmt::format("{}: {} is {} there and {} here{}", partial_, name, was, value, others));
    }
    if (record.at("bytes").get<uintmax_t>() != fs::file_size(partial_))
      fail(partial_ + ": is not as the run left it; remove the file and begin anew");
    first_ = record.at("images").get<int64_t>();
  } catch (const Json::exception&) {
    first_ = -1;
  }
  if (first_ < 1 || first_ > options_.total)
    fail(record_file_ + ": is damaged; remove it and " + partial_ + ", and begin anew");
}

std::string KeptPredictions::record(uintmax_t bytes) const {
  Json record{{"images", images_}, {"of", options_.total}, {"bytes", bytes}};
  for (const auto& [name, value] : options_.traits) record["run"][name] = value;
  return record.dump(1) + "\n";
}

void KeptPredictions::write_record() {
  saved_ = images_;
  resumable_ = false;
  write_file_atomic(record_file_, record(fs::file_size(partial_)));
  resumable_ = true;
}

void KeptPredictions::save() {
  const double from = seconds_now();
  const std::string& written = writer_->flush();
  try {
    // The run needs no copy to come to its end: none may take the room that its file needs.
    if (fs::space(written).available > 4 * fs::file_size(written)) {
      PendingFile copy(partial_);
      copy.copy(written);
      copy.commit();
      write_record();
    }
  } catch (const std::exception&) {
    // keep() makes none either.
  }
  // Copies of a file that grows take no more than a twentieth of the time.
  next_save_ = seconds_now() + std::max(options_.save_every, 20 * (seconds_now() - from));
}

void KeptPredictions::write(const std::vector<Prediction>& rows, int64_t images) {
  writer_->write(rows);
  images_ = images;
  if (!partial_.empty() && seconds_now() >= next_save_) save();
}

void KeptPredictions::finish() {
  writer_->finish();
  room_.reset();
  if (saved_ == 0) return;
  std::error_code none;
  fs::remove(partial_, none);
  fs::remove(record_file_, none);
}

std::string KeptPredictions::keep() {
  if (partial_.empty()) return "";
  if (images_ > saved_) {
    try {
      writer_->keep(partial_);
      room_.reset();
      write_record();
    } catch (const std::exception&) {
      // The run's own error is what counts.
    }
  }
  if (saved_ == 0) return "";
  return fmt::format("{} holds the rows of the first {} of {} images{}", partial_, saved_, options_.total,
                     resumable_ ? "; resume with the same command and --resume" : "");
}

}  // namespace gm
