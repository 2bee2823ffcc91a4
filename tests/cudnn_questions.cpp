#include "tests/cudnn_questions.h"

#include <algorithm>
#include <filesystem>
#include <set>

#include "layers/network.h"
#include "layers/network_cases.h"
#include "layers/rewrites.h"

namespace gm::test {

namespace {

const std::vector<Architecture>& networks() {
  static const std::vector<Architecture> all = [] {
    std::vector<std::filesystem::path> files;
    for (const auto& entry : std::filesystem::directory_iterator(GM_SOURCE_DIR "/models"))
      if (entry.path().extension() == ".yaml") files.push_back(entry.path());
    std::sort(files.begin(), files.end());
    std::vector<Architecture> read;
    for (const auto& file : files) {
      read.push_back(read_architecture(load_config(file), file));
      read.back().name = file.stem();
    }
    return read;
  }();
  return all;
}

class Collection {
 public:
  void add(const CudnnQuestion& q, const std::string& layer) {
    if (known_.insert(question_text(q)).second) questions.push_back({q, layer});
  }
  std::vector<NetworkQuestion> questions;

 private:
  std::set<std::string> known_;
};

// Calls f(node, geometry) for the distinct dense convolutions of a graph.
template <class F>
void for_convolutions(const Graph& graph, F&& f) {
  for (const NetworkCase& found : network_cases(graph)) {
    if (found.op->name != "conv2d" && found.op->name != "conv_bn_act") continue;
    const TensorSpec operands[] = {found.c.in[0].spec, found.c.in[1].spec};
    f(found, conv_geometry(found.c.attrs, operands));
  }
}
bool given(const NetworkCase& found, size_t i) {
  return found.c.in.size() > i && found.c.in[i].fill != Fill::absent;
}

}  // namespace

std::vector<NetworkQuestion> training_questions(int64_t batch, DType dtype) {
  Collection all;
  for (const Architecture& a : networks()) {
    ParameterTable table;
    const NetworkGraph net =
        fuse_for_training(build_network(a, table, {.batch = batch, .training = true, .dtype = dtype}));
    const std::string stem = "stem_conv";
    for_convolutions(net.graph, [&](const NetworkCase& found, const ConvGeometry& g) {
      const std::string layer = a.name + ' ' + found.layers.front();
      auto ask = [&](CudnnGraph graph, bool bias = false) {
        CudnnQuestion q{.graph = graph, .g = g};
        q.bias = bias;
        all.add(q, layer);
      };
      ask(CudnnGraph::forward);
      if (found.op->name == "conv2d" && given(found, 2)) ask(CudnnGraph::forward_epilogue, true);
      ask(CudnnGraph::weights_same);
      if (g.dtype == DType::bf16 && sums_in_f32(g))
        for (CudnnGraph graph : {CudnnGraph::weights_f32, CudnnGraph::weights_f32_add}) ask(graph);
      if (found.layers.front() == stem) return;  // nobody wants the gradient of the image
      ask(CudnnGraph::backward_data);
      ask(CudnnGraph::backward_data_add);
    });
  }
  return all.questions;
}

std::vector<NetworkQuestion> inference_questions(int64_t batch, DType dtype) {
  Collection all;
  for (const Architecture& a : networks()) {
    ParameterTable table;
    const FoldedNetwork folded(build_network(a, table, {.batch = batch, .dtype = dtype, .loss = false}));
    for_convolutions(folded.net.graph, [&](const NetworkCase& found, const ConvGeometry& g) {
      const std::string layer = a.name + ' ' + found.layers.front();
      CudnnQuestion q{.graph = CudnnGraph::forward, .g = g};
      all.add(q, layer);
      q.bias = given(found, 2);
      q.residual = given(found, 3);
      q.act = act_of(found.c.attrs);
      if (!q.bias && !q.residual && q.act == Act::none) return;
      q.graph = CudnnGraph::forward_epilogue;
      all.add(q, layer);
    });
  }
  return all.questions;
}

std::string question_text(const CudnnQuestion& q) {
  const char* const names[] = {"forward",      "forward",     "backward_data",  "backward_data_add",
                               "weights_same", "weights_f32", "weights_f32_add"};
  const char* const acts[] = {"", "+silu", "+relu", "+relu6", "+sigmoid"};
  const ConvGeometry& g = q.g;
  auto shape = [](std::initializer_list<int64_t> sizes) {
    std::string text;
    for (int64_t size : sizes) text += (text.empty() ? "" : "x") + std::to_string(size);
    return text;
  };
  std::string text = names[static_cast<int>(q.graph)];
  if (q.bias) text += "+bias";
  text += acts[static_cast<int>(q.act)];
  if (q.residual) text += "+residual";
  text += std::string(" ") + dtype_name(g.dtype) + (q.tf32 ? " tf32 " : " ") + shape({g.n, g.h, g.w, g.c}) +
          " -> " + shape({g.oh, g.ow, g.k}) + " k" + std::to_string(g.kernel) + " s" +
          std::to_string(g.stride) + " pad";
  for (int64_t pad : {g.pad_top, g.pad_left, g.pad_bottom, g.pad_right}) text += ' ' + std::to_string(pad);
  return text;
}

}  // namespace gm::test
