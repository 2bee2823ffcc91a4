// Ten steps of each optimizer against formulas written out in doubles, with the settings of real training.
#include <gtest/gtest.h>

#include <cmath>

#include "kernels/common/philox.h"
#include "tests/op_direct.h"

namespace gm::test {

namespace {

constexpr int kSteps = 10;
constexpr int64_t kCount = 1027;  // not a multiple of the vector width

struct Setting {
  double lr = 1e-3, beta1 = 0.9, beta2 = 0.999, eps = 1e-3, scale = 0.5, decay = 0;
  double momentum = 0.9;
};

struct Problem {
  std::vector<float> start;
  std::vector<std::vector<float>> grads;
  std::vector<uint8_t> mask;
  Problem() {
    PhiloxStream rng(3, RngUse::init);
    auto draw = [&] {
      std::vector<float> v(kCount);
      for (float& x : v) x = float(rng.uniform(-2, 2));
      return v;
    };
    start = draw();
    for (int s = 0; s < kSteps; ++s) grads.push_back(draw());
    for (int64_t i = 0; i < kCount; ++i) mask.push_back(rng.below(2));
  }
};

// Runs the op and returns the parameters after ten steps.
std::vector<float> run(const std::string& backend, const char* op, const Attrs& attrs, const Problem& problem,
                       const Setting& s, bool masked) {
  Direct d(backend);
  const bool adam = std::string(op) == "adam";
  std::vector<View> state{d.put(problem.start)};
  for (int k = 0; k < (adam ? 2 : 1); ++k) state.push_back(d.put(std::vector<float>(kCount, 0.f)));
  const View mask = masked ? d.put(problem.mask) : View{};
  std::vector<View> out;
  if (attrs.geti("half_copy", 0)) out.push_back(d.space({{kCount}, DType::bf16}));
  for (int t = 1; t <= kSteps; ++t) {
    std::vector<float> hyper(8, 0.f);
    hyper[0] = float(s.lr);
    hyper[1] = float(adam ? s.beta1 : s.momentum);
    if (adam) {
      hyper[2] = float(s.beta2), hyper[3] = float(s.eps);
      hyper[4] = float(1 - std::pow(s.beta1, t)), hyper[5] = float(1 - std::pow(s.beta2, t));
    }
    hyper[6] = float(s.scale), hyper[7] = float(s.decay);
    d.forward(op, attrs, {d.put(problem.grads[t - 1]), d.put(hyper), mask}, out, {}, state);
  }
  const auto param = d.get<float>(state[0]);
  if (!out.empty()) {
    const auto copy = d.get<bf16>(out[0]);
    for (int64_t i = 0; i < kCount; ++i)
      EXPECT_EQ(copy[i].bits, to_bf16(param[i]).bits) << backend << " copy " << i;
  }
  return param;
}

// Compares the way travelled, not the place: parameters of size 1 would hide steps of size lr. The tolerance
// is f32 rounding of a parameter (6e-8 a step) plus 1 - beta2 taken from an f32 beta2 (5e-5).
void expect_travelled(const std::vector<float>& got, const std::vector<double>& want, const Problem& problem,
                      const std::string& what) {
  double worst = 0, longest = 0;
  for (int64_t i = 0; i < kCount; ++i) {
    longest = std::max(longest, std::abs(want[i] - problem.start[i]));
    worst = std::max(worst, std::abs(got[i] - want[i]));
  }
  EXPECT_GT(longest, 1e-3) << what;
  EXPECT_LT(worst, 2e-4 * longest + 1e-6) << what;
}

enum class Form { torch, keras, adamw };
std::vector<double> adam_in_doubles(Form form, const Problem& problem, const Setting& s, bool masked) {
  std::vector<double> p(problem.start.begin(), problem.start.end()), m(kCount), v(kCount);
  for (int t = 1; t <= kSteps; ++t)
    for (int64_t i = 0; i < kCount; ++i) {
      const double decay = masked && !problem.mask[i] ? 0 : s.decay;
      double g = s.scale * problem.grads[t - 1][i];
      if (form == Form::adamw)
        p[i] *= 1 - s.lr * decay;
      else
        g += decay * p[i];
      m[i] += (1 - s.beta1) * (g - m[i]);
      v[i] += (1 - s.beta2) * (g * g - v[i]);
      const double c1 = 1 - std::pow(s.beta1, t), c2 = 1 - std::pow(s.beta2, t);
      if (form == Form::keras)
        p[i] -= s.lr * std::sqrt(c2) / c1 * m[i] / (std::sqrt(v[i]) + s.eps);
      else
        p[i] -= s.lr / c1 * m[i] / (std::sqrt(v[i]) / std::sqrt(c2) + s.eps);
    }
  return p;
}

}  // namespace

TEST(OpOptimizer, AdamTenSteps) {
  const Problem problem;
  for (const auto& backend : backends())
    for (Form form : {Form::torch, Form::keras, Form::adamw})
      for (double decay : {0., 0.05})
        for (bool masked : {false, true}) {
          Setting s;
          s.decay = decay;
          const Attrs attrs{{"epsilon_hat", form == Form::keras},
                            {"decoupled", form == Form::adamw},
                            {"half_copy", masked}};
          const std::string what = backend + " form " + std::to_string(int(form)) + " decay " +
                                   std::to_string(decay) + (masked ? " masked" : "");
          expect_travelled(run(backend, "adam", attrs, problem, s, masked),
                           adam_in_doubles(form, problem, s, masked), problem, what);
        }
}

// With an epsilon that matters the two forms must differ, or the test above could not tell them apart.
TEST(OpOptimizer, AdamFormsDiffer) {
  const Problem problem;
  const auto torch = adam_in_doubles(Form::torch, problem, {}, false),
             keras = adam_in_doubles(Form::keras, problem, {}, false);
  double largest = 0;
  for (int64_t i = 0; i < kCount; ++i) largest = std::max(largest, std::abs(torch[i] - keras[i]));
  EXPECT_GT(largest, 5e-5);
}

TEST(OpOptimizer, SgdTenSteps) {
  const Problem problem;
  for (const auto& backend : backends())
    for (bool nesterov : {false, true})
      for (bool masked : {false, true}) {
        Setting s;
        s.lr = 0.01, s.decay = 0.05;
        std::vector<double> p(problem.start.begin(), problem.start.end()), v(kCount);
        for (int t = 0; t < kSteps; ++t)
          for (int64_t i = 0; i < kCount; ++i) {
            const double g =
                s.scale * problem.grads[t][i] + (masked && !problem.mask[i] ? 0 : s.decay) * p[i];
            v[i] = s.momentum * v[i] + g;
            p[i] -= s.lr * (nesterov ? g + s.momentum * v[i] : v[i]);
          }
        const Attrs attrs{{"nesterov", nesterov}, {"half_copy", masked}};
        expect_travelled(run(backend, "sgd", attrs, problem, s, masked), p, problem,
                         backend + (nesterov ? " nesterov" : "") + (masked ? " masked" : ""));
      }
}

}  // namespace gm::test
