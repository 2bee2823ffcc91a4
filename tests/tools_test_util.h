// What the tests of the command line share: running a built tool, a tiny network, a tiny data set.
#pragma once
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "data/csv.h"
#include "engine/device.h"
#include "layers/network.h"
#include "tests/data_test_util.h"
#include "tools/model_file.h"

namespace gm::test {

inline TensorFile store_weights(const ParameterTable& table, const Weights& weights) {
  TensorFile file;
  for (const Parameter& p : table) file.tensors[p.name] = StoredTensor::of(p.shape, weights.download(p));
  return file;
}

/// A running gm_* tool. Its output goes to files, so that it never blocks on a full pipe.
class Process {
 public:
  struct Options {
    long file_limit = -1;      // bytes: longer files fail with "File too large", like a full disk
    long open_limit = -1;      // descriptors
    bool no_hang_up = false;   // SIGHUP is ignored, as nohup has it
    std::string out = "";      // standard output; default: kept
    bool no_err = false;       // standard error is closed
    std::string err = "";      // standard error; default: kept
    std::string scratch = "";  // TMPDIR; default: that of the tests
  };
  Process(const std::string& tool, std::vector<std::string> args, const Options& options) : tool_(tool) {
    args.insert(args.begin(), std::string(GM_BINARY_DIR) + "/bin/" + tool);
    std::vector<char*> argv;
    for (auto& a : args) argv.push_back(a.data());
    argv.push_back(nullptr);
    const std::string out = options.out.empty() ? dir_ / "out" : options.out,
                      err = options.err.empty() ? dir_ / "err" : options.err;
    pid_ = ::fork();
    if (pid_ != 0) return;
    const int o = ::open(out.c_str(), O_WRONLY | O_CREAT, 0600),
              e = ::open(err.c_str(), O_WRONLY | O_CREAT, 0600);
    ::dup2(o, 1);
    ::dup2(e, 2);
    if (options.no_err)  // and what lies behind it, so that it is the first to be opened again
      for (int fd : {2, o, e}) ::close(fd);
    if (options.file_limit >= 0) {
      const rlimit limit{static_cast<rlim_t>(options.file_limit), static_cast<rlim_t>(options.file_limit)};
      ::setrlimit(RLIMIT_FSIZE, &limit);
    }
    if (options.open_limit >= 0) {
      const rlimit limit{static_cast<rlim_t>(options.open_limit), static_cast<rlim_t>(options.open_limit)};
      ::setrlimit(RLIMIT_NOFILE, &limit);
    }
    ::signal(SIGXFSZ, SIG_DFL);
    ::signal(SIGHUP, options.no_hang_up ? SIG_IGN : SIG_DFL);
    if (!options.scratch.empty()) ::setenv("TMPDIR", options.scratch.c_str(), 1);
    ::execv(argv[0], argv.data());
    ::_exit(127);
  }
  void send(int signal) { ::kill(pid_, signal); }
  bool running() {
    if (!done_ && ::waitpid(pid_, &status_, WNOHANG) == pid_) done_ = true;
    return !done_;
  }
  /// Exit code, or -signal.
  int wait() {
    if (!done_) ::waitpid(pid_, &status_, 0);
    done_ = true;
    return WIFEXITED(status_) ? WEXITSTATUS(status_) : -WTERMSIG(status_);
  }
  std::string out() const { return read_text(dir_ / "out"); }
  std::string err() const { return read_text(dir_ / "err"); }
  const std::string& tool() const { return tool_; }

 private:
  TempDir dir_;
  std::string tool_;
  pid_t pid_ = -1;
  int status_ = 0;
  bool done_ = false;
};

/// A tool that has ended.
struct Ran {
  std::string tool;
  int code;
  std::string out, err;
};
inline Ran run(const std::string& tool, const std::vector<std::string>& args,
               const Process::Options& options = {}) {
  Process p(tool, args, options);
  const int code = p.wait();
  return {tool, code, p.out(), p.err()};
}

inline void expect_success(const Ran& r) { EXPECT_EQ(r.code, 0) << r.tool << ": " << r.err << r.out; }

/// Exit code `code` and exactly one line on standard error that starts with the tool's name and holds
/// `parts`.
inline void expect_failure(const Ran& r, int code, const std::vector<std::string>& parts) {
  EXPECT_EQ(r.code, code) << r.tool << ": " << r.err << r.out;
  EXPECT_EQ(std::count(r.err.begin(), r.err.end(), '\n'), 1) << r.err;
  EXPECT_EQ(r.err.rfind(r.tool + ": error: ", 0), 0u) << r.err;
  for (const auto& part : parts)
    EXPECT_NE(r.err.find(part), std::string::npos) << part << " not in " << r.err;
}

inline void expect_same_tensors(const std::string& a, const std::string& b) {
  const TensorFile x = read_safetensors(a), y = read_safetensors(b);
  ASSERT_EQ(x.tensors.size(), y.tensors.size());
  for (const auto& [name, tensor] : x.tensors) {
    ASSERT_TRUE(y.tensors.count(name)) << name;
    EXPECT_EQ(tensor.bytes, y.tensors.at(name).bytes) << name << " differs";
  }
}

/// Makes class names the labels of a catalog of gm_data synth: the same galaxies and classes, numbered in the
/// order of their names.
inline void name_labels(const std::string& catalog) {
  const CsvTable table(catalog);
  std::string named = "id_str,file_loc,label\n";
  for (int64_t r = 0; r < table.rows(); ++r)
    named += table.cell(r, 0) + "," + table.cell(r, 1) + "," + table.cell(r, table.column("class")) + "\n";
  write_text(catalog, named);
}

/// Losses, accuracies and learning rates; speeds differ from run to run.
inline std::string comparable_metrics(const std::string& path) {
  const CsvTable t(path);
  std::string text;
  for (int64_t r = 0; r < t.rows(); ++r)
    for (const char* c : {"epoch", "train_loss", "train_accuracy", "val_loss", "val_accuracy", "lr"})
      text += t.cell(r, t.column(c)) + " ";
  return text;
}

/// Waits until the checkpoint that a training run writes stands in the middle of an epoch.
inline bool wait_for_mid_epoch(Process& p, const std::string& checkpoint) {
  for (; p.running(); std::this_thread::sleep_for(std::chrono::milliseconds(1)))
    if (std::filesystem::exists(checkpoint) && read_safetensors(checkpoint).metadata.at("batch") != "0")
      return true;
  return false;
}

/// A file that a tool has to wait for: a pipe takes its place.
class AwaitedFile {
 public:
  explicit AwaitedFile(const std::string& path) : path_(path), text_(read_text(path)) {
    std::filesystem::remove(path);
    EXPECT_EQ(::mkfifo(path.c_str(), 0600), 0);
  }
  ~AwaitedFile() { close(); }
  AwaitedFile(const AwaitedFile&) = delete;
  AwaitedFile& operator=(const AwaitedFile&) = delete;
  /// True once the tool has come to it.
  bool reached_by(Process& p) {
    for (; p.running(); std::this_thread::sleep_for(std::chrono::milliseconds(1)))
      if ((fd_ = ::open(path_.c_str(), O_WRONLY | O_NONBLOCK | O_CLOEXEC)) >= 0) return true;
    return false;
  }
  void give() {
    EXPECT_EQ(::write(fd_, text_.data(), text_.size()), static_cast<ssize_t>(text_.size()));
    close();
  }
  void close() {
    if (fd_ >= 0) ::close(fd_);
    fd_ = -1;
  }

 private:
  std::string path_, text_;
  int fd_ = -1;
};

/// A network that has every kind of layer and trains in milliseconds. 5 classes.
inline std::string tiny_config() {
  return R"(model:
  name: tiny
  classes: 5
  activation: silu
  padding: same
  batch_norm: {momentum: 0.9, epsilon: 1.0e-3}
  se: 0.25
  dropout: 0.2
  stochastic_depth: 0.1
  stem: {kernel: 3, stride: 2, filters: 8}
  stages:
    - {block: mbconv, expand: 1, kernel: 3, stride: 1, filters: 8, layers: 1}
    - {block: mbconv, expand: 2, kernel: 5, stride: 2, filters: 16, layers: 2}
  head: {filters: 16}
input:
  size: 32
  scaling: {mean: 0, std: 255}
augment: {kind: gz}
optimizer: {name: adamw, lr: 3.0e-3, weight_decay: 0.02}
schedule: {name: cosine, warmup_epochs: 1}
train: {epochs: 2, batch: 8, label_smoothing: 0.05}
)";
}

/// Of gm_train on the CPU, with checkpoints within epochs.
inline std::vector<std::string> train_arguments(const std::string& config, const std::string& data,
                                                const std::string& out,
                                                const std::vector<std::string>& more) {
  std::vector<std::string> a{config,
                             "--data",
                             data,
                             "--out",
                             out,
                             "--device",
                             "cpu",
                             "--threads",
                             "2",
                             "--set",
                             "train.checkpoint_steps=5"};
  a.insert(a.end(), more.begin(), more.end());
  return a;
}

/// Writes a freshly initialised network of tiny_config() as a weight file; returns its tensors.
inline TensorFile write_tiny_model(const std::string& path) {
  const YAML::Node config = parse_yaml(tiny_config(), "tiny");
  Architecture a = read_architecture(config, "tiny");
  a.class_names = gz5_classes();
  auto device = open_device("cpu", {.threads = 1});
  ParameterTable table;
  build_network(a, table, {.loss = false});
  Weights weights(*device, table, false, false);
  weights.initialize(table, 3);
  // Running statistics as after some training: with mean 0 and variance 1 a wrong batch norm would not show.
  for (const Parameter& p : table)
    if (!p.trainable) {
      std::vector<float> values(static_cast<size_t>(p.shape.numel()));
      const bool variance = p.name.find("variance") != std::string::npos;
      for (size_t i = 0; i < values.size(); ++i)
        values[i] =
            variance ? 0.5f + 0.1f * static_cast<float>(i % 7) : 0.1f * static_cast<float>(i % 5) - 0.2f;
      weights.upload(p, values);
    }
  TensorFile file = store_weights(table, weights);
  file.metadata = model_metadata(a, config["augment"]);
  write_safetensors(path, file);
  return file;
}

}  // namespace gm::test
