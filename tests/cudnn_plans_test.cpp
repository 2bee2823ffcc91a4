// Asks cuDNN, without a GPU, whether it has plans for what the networks of models/ want of it on the cards we
// name. Plain convolutions have engines that come precompiled. Those with an epilogue are compiled at run
// time, for which cuDNN must find NVRTC and a libcuda.so.1; the toolkit's link stub serves as the latter.
#include <dlfcn.h>
#include <gtest/gtest.h>

#include <atomic>
#include <map>
#include <mutex>
#include <set>
#include <thread>

#include "tests/cudnn_offer.h"
#include "tests/cudnn_questions.h"
#include "tests/skip_report.h"

namespace gm::test {

namespace {

// Public figures of a card, in the words of cuDNN's device property descriptor.
std::string properties(int architecture, int processors, int shared_memory, long long memory, int l2) {
  auto number = [](long long v) { return std::to_string(v); };
  return "{\"deviceVer\": " + number(architecture) + ", \"multiProcessorCount\": " + number(processors) +
         ", \"warpSize\": 32, \"maxSharedMemoryPerBlock\": 49152, \"maxSharedMemoryPerBlockOptin\": " +
         number(shared_memory) +
         ", \"reservedSharedMemoryPerBlock\": 1024, \"maxRegistersPerSM\": 65536, \"maxCtasPerSM\": " +
         number(architecture == 860 ? 16 : 32) +
         ", \"maxThreadsPerBlock\": 1024, \"maxThreadsPerSM\": " + number(architecture == 860 ? 1536 : 2048) +
         ", \"regsPerBlock\": 65536, \"totalGlobalMem\": " + number(memory) +
         ", \"smClockRateKHz\": 1500000, \"l2CacheSize\": " + number(l2) +
         ", \"maxBlockSize\": [1024, 1024, 64], \"memClockRateKHz\": 1593000, \"maxGridSize\": [2147483647, "
         "65535, 65535], \"supportCoopLaunch\": 1, \"pciDeviceId\": 0, \"isTccDriver\": 0, \"cudaDeviceId\": "
         "0, \"driverVer\": 13000, \"deviceName\": \"card\"}";
}
struct Card {
  const char* name;
  std::string json;
};
const std::vector<Card>& cards() {
  static const std::vector<Card> all{{"sm_80", properties(800, 108, 166912, 85899345920, 41943040)},
                                     {"sm_86", properties(860, 82, 101376, 25769803776, 6291456)},
                                     {"sm_90", properties(900, 132, 232448, 85899345920, 52428800)}};
  return all;
}
constexpr DType kTypes[] = {DType::bf16, DType::f32};

// A question, and who asks it of which card.
struct Request {
  const Card* card;
  NetworkQuestion asked;
};
void append(std::vector<Request>& all, const std::vector<NetworkQuestion>& questions) {
  for (const Card& card : cards())
    for (const NetworkQuestion& q : questions) all.push_back({&card, q});
}

// Asks all of them, on as many threads as there are processors. attempts 0: configurations are enough.
// Returns those that got a no, one a line; of many, the first.
std::string refused(const std::vector<Request>& requests, int attempts) {
  std::atomic<size_t> next = 0;
  std::mutex mutex;
  std::map<size_t, std::string> lines;  // by request, so that the order does not depend on the threads
  auto work = [&] {
    for (size_t i; (i = next++) < requests.size();) {
      const auto& [card, asked] = requests[i];
      const CudnnOffer offer = cudnn_offer(asked.question, card->json, attempts);
      if (attempts ? offer.plan : offer.configurations > 0) continue;
      const std::lock_guard lock(mutex);
      lines[i] = std::string("  ") + card->name + ' ' + question_text(asked.question) + " (" + asked.layer +
                 "): " + std::to_string(offer.configurations) + " configurations; " + offer.refusal + "\n";
    }
  };
  std::vector<std::thread> threads;
  for (unsigned i = 1; i < std::thread::hardware_concurrency(); ++i) threads.emplace_back(work);
  work();
  for (std::thread& t : threads) t.join();
  std::string text;
  size_t shown = 0;
  for (const auto& [i, line] : lines)
    if (shown++ < 40) text += line;
  if (shown > 40) text += "  ... and " + std::to_string(shown - 40) + " more\n";
  return text;
}

bool compiles() {
  static const bool yes = [] {
    const std::vector<NetworkQuestion> asked = inference_questions(1, DType::bf16);
    for (const NetworkQuestion& q : asked)
      if (q.question.graph == CudnnGraph::forward_epilogue)
        return cudnn_offer(q.question, cards()[0].json, 0).configurations > 0;
    return false;
  }();
  return yes;
}
const char* const kNoCompiler = "cuDNN cannot compile kernels here: it needs NVRTC and libcuda.so.1";

// Everything served by an engine that comes precompiled.
bool plain(const CudnnQuestion& q) {
  return q.graph != CudnnGraph::forward_epilogue && q.graph < CudnnGraph::weights_f32;
}
template <class Keep>
std::vector<NetworkQuestion> only(std::vector<NetworkQuestion> questions, Keep&& keep) {
  std::erase_if(questions, [&](const NetworkQuestion& q) { return !keep(q.question); });
  return questions;
}

}  // namespace

TEST(CudnnPlans, EveryConvolutionAndItsGradients) {
  std::vector<Request> requests;
  for (int64_t batch : {1, 64, 256})
    for (DType t : kTypes) {
      const std::vector<NetworkQuestion> questions = only(training_questions(batch, t), plain);
      ASSERT_GT(questions.size(), 1000u);
      append(requests, questions);
      append(requests, only(inference_questions(batch, t), plain));
    }
  std::vector<NetworkQuestion> tf32 = only(training_questions(64, DType::f32), plain);
  for (NetworkQuestion& q : tf32) q.question.tf32 = true;
  append(requests, tf32);
  const std::string no = refused(requests, 3);
  EXPECT_TRUE(no.empty()) << "without a plan:\n" << no;
}

// What a folded network runs: bias, activation and residual in the convolution's own kernel. Which kernels
// cuDNN would compile; one of each kind is compiled below. Batch sizes take turns.
TEST(CudnnPlans, EveryEpilogueOfTheFoldedNetworks) {
  if (!compiles()) GTEST_SKIP() << kNoCompiler;
  std::vector<Request> requests;
  for (DType t : kTypes) {
    std::vector<NetworkQuestion> questions = only(
        inference_questions(1, t), [](const auto& q) { return q.graph == CudnnGraph::forward_epilogue; });
    ASSERT_GT(questions.size(), 250u);
    const int64_t batches[] = {1, 64, 256};
    for (size_t i = 0; i < questions.size(); ++i) questions[i].question.g.n = batches[i % 3];
    append(requests, questions);
  }
  const std::string no = refused(requests, 0);
  EXPECT_TRUE(no.empty()) << "without a configuration:\n" << no;
}

TEST(CudnnPlans, EveryWeightGradientInF32OfBf16Networks) {
  if (!compiles()) GTEST_SKIP() << kNoCompiler;
  std::vector<Request> requests;
  const std::vector<NetworkQuestion> questions = only(
      training_questions(64, DType::bf16), [](const auto& q) { return q.graph >= CudnnGraph::weights_f32; });
  ASSERT_GT(questions.size(), 80u);
  append(requests, questions);
  const std::string no = refused(requests, 0);
  EXPECT_TRUE(no.empty()) << "without a configuration:\n" << no;
}

// A kernel that the heuristics offer may fail to compile, so one of each kind is compiled: the first layer of
// every kernel size, stride, activation, residual and element type.
TEST(CudnnPlans, OneOfEachKindCompiles) {
  if (!compiles()) GTEST_SKIP() << kNoCompiler;
  std::vector<Request> requests;
  for (DType t : kTypes) {
    std::vector<NetworkQuestion> questions = inference_questions(64, t);
    for (const NetworkQuestion& q : training_questions(64, t)) questions.push_back(q);
    std::map<std::string, NetworkQuestion> kinds;
    for (const NetworkQuestion& asked : questions) {
      const CudnnQuestion& q = asked.question;
      if (plain(q)) continue;
      std::string kind;
      for (int64_t v : {int64_t(q.graph), q.g.kernel, q.g.stride, int64_t(q.act), int64_t(q.residual)})
        kind += std::to_string(v) + ' ';
      kinds.try_emplace(kind, asked);
    }
    std::vector<NetworkQuestion> chosen;
    for (const auto& [kind, asked] : kinds) chosen.push_back(asked);
    ASSERT_GT(chosen.size(), 8u);
    append(requests, chosen);
  }
  const std::string no = refused(requests, 3);
  EXPECT_TRUE(no.empty()) << "without a kernel that compiles:\n" << no;
}

// The file of choices knows a candidate by its name: it has to tell the candidates of a problem apart and to
// be the same when it is asked for again.
TEST(CudnnPlans, CandidatesHaveNamesThatLast) {
  size_t several = 0;
  for (DType t : kTypes)
    for (const Card& card : cards()) {
      const std::vector<NetworkQuestion> questions = only(training_questions(64, t), plain);
      for (size_t i = 0; i < questions.size(); i += 50) {
        const CudnnQuestion& q = questions[i].question;
        const std::vector<std::string> names = cudnn_offer(q, card.json, 0).names;
        EXPECT_EQ(cudnn_offer(q, card.json, 0).names, names) << question_text(q);
        std::set<std::string> known;
        for (const std::string& name : names)  // an engine without settings may be listed twice
          EXPECT_TRUE(known.insert(name).second || name.back() == ':') << question_text(q) << ": " << name;
        several += names.size() > 1;
        for (const std::string& name : names) EXPECT_EQ(name.rfind("engine ", 0), 0u) << name;
      }
    }
  EXPECT_GT(several, 50u);
}

// The answers above are worth something only if there are others.
TEST(CudnnPlans, WhatCannotBeServedIsRefused) {
  CudnnQuestion q = training_questions(64, DType::bf16).front().question;
  ASSERT_TRUE(cudnn_offer(q, cards()[0].json).plan);
  q.g.oh += 1;  // a row that no output has
  const CudnnOffer offer = cudnn_offer(q, cards()[0].json);
  EXPECT_FALSE(offer.plan);
  EXPECT_FALSE(offer.refusal.empty());
}

}  // namespace gm::test

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  // Where there is no driver the toolkit's stub takes its place: libraries are found by their soname once one
  // of them is loaded.
  if (!dlopen("libcuda.so.1", RTLD_NOW | RTLD_GLOBAL)) dlopen(GM_CUDA_STUB, RTLD_NOW | RTLD_GLOBAL);
  testing::UnitTest::GetInstance()->listeners().Append(new gm::test::SkipReport);
  return RUN_ALL_TESTS();
}
