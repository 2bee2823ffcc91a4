// Files of other frameworks (golden/import/) and what tests hold networks read from them against.
#pragma once
#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

#include "engine/session.h"
#include "engine/weight_file.h"
#include "layers/import.h"
#include "layers/rewrites.h"
#include "tests/vectors.h"

namespace gm::test {

const std::string kImportFolder = std::string(GM_SOURCE_DIR) + "/tests/golden/import/";

inline Architecture narrow_v2() {
  return read_architecture(load_config(kImportFolder + "narrow_v2.yaml"), "narrow_v2.yaml");
}

/// Relative L2 distance of our logits from those in `golden`.
inline double logits_error(const Architecture& a, const TensorFile& weights, const TensorFile& golden) {
  auto device = open_device("cpu", {.threads = 2});
  const StoredTensor& pixels = golden.at("pixels");
  ParameterTable table;
  const NetworkGraph g = build_network(a, table, {.batch = pixels.spec.shape[0], .loss = false});
  Weights w(*device, table, false, false);
  load_weights(weights, table, w);
  FoldedNetwork folded(g);
  Weights fw(*device, folded.table, false, false);
  folded.refresh(table, w, fw);
  Session s(*device, folded.net.graph, fw, {.keep = {folded.net.logits}});
  const auto* bytes = reinterpret_cast<const uint8_t*>(pixels.bytes.data());
  const std::vector<float> wide(bytes, bytes + pixels.bytes.size());
  s.upload(folded.net.pixels, wide.data());
  s.forward();
  return relative_l2(s.download(folded.net.logits), golden.at("logits").floats());
}

/// The message of the gm::Error that `action` throws; it must be one line.
inline std::string one_line_error(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& e) {
    EXPECT_EQ(std::string(e.what()).find('\n'), std::string::npos) << e.what();
    return e.what();
  }
  ADD_FAILURE() << "no error";
  return "";
}
inline void expect_parts(const std::string& text, const std::vector<std::string>& parts) {
  for (const auto& part : parts) EXPECT_NE(text.find(part), std::string::npos) << part << " not in: " << text;
}

}  // namespace gm::test
